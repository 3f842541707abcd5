package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
)

const keysUsage = "SERIAL|NAME|PORT…"

func control(c *cli.Context) bussocket.Control { return bussocket.Control{Socket: c.String("socket")} }

func insertCommand() *cli.Command {
	return &cli.Command{
		Name: "insert", Usage: "plug keys in", ArgsUsage: keysUsage,
		Action: func(c *cli.Context) error { return eachKey(c, control(c).Insert) },
	}
}

func removeCommand() *cli.Command {
	return &cli.Command{
		Name: "remove", Usage: "pull keys", ArgsUsage: keysUsage,
		Action: func(c *cli.Context) error { return eachKey(c, control(c).Remove) },
	}
}

// eachKey does something to every key that is named, also after one has failed.
func eachKey(c *cli.Context, do func(context.Context, string) error) error {
	if !c.Args().Present() {
		return fmt.Errorf("%s needs the serial or port of a key; tokenemu list shows them", c.Command.Name)
	}
	var failed []error
	for _, key := range c.Args().Slice() {
		failed = append(failed, advise(do(c.Context, key)))
	}
	return errors.Join(failed...)
}

// advise adds what to do about a failure.
func advise(err error) error {
	if e, refused := errors.AsType[*bussocket.Error](err); refused {
		switch e.Code {
		case bussocket.CodeUnknownKey:
			return fmt.Errorf("%w; tokenemu list shows the keys", err)
		case bussocket.CodeGone:
			return fmt.Errorf("%w; plug it in with tokenemu insert", err)
		}
	}
	return err
}

func touchCommand() *cli.Command {
	return &cli.Command{
		Name:      "touch",
		Usage:     "touch keys, and print what they type",
		ArgsUsage: keysUsage,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "long", Usage: "a long touch: slot 2"},
			&cli.IntFlag{Name: "times", Usage: "touch `N` times", Value: 1},
		},
		Action: func(c *cli.Context) error {
			return eachKey(c, func(ctx context.Context, key string) error { return touch(ctx, c, key) })
		},
	}
}

func touch(ctx context.Context, c *cli.Context, key string) error {
	touches, err := control(c).Touch(ctx, key, c.Bool("long"), c.Int("times"))
	if err != nil {
		return err
	}
	for _, t := range touches {
		switch t.To {
		case bussocket.ToWindow:
			fmt.Fprintln(c.App.Writer, strings.TrimSuffix(t.Text, "\n"))
		case bussocket.ToHolder:
			fmt.Fprintln(c.App.ErrWriter, "typed into the program that holds the key")
		case bussocket.ToUSB:
			fmt.Fprintln(c.App.ErrWriter, "typed over USB, into whatever reads the key there")
		case bussocket.ToChallenge:
			fmt.Fprintln(c.App.ErrWriter, "typed nothing: the touch released what waited for it, a challenge or the smart card")
		default:
			slot := 1
			if c.Bool("long") {
				slot = 2
			}
			fmt.Fprintf(c.App.ErrWriter, "key %s typed nothing: slot %d holds nothing that types\n", key, slot)
		}
	}
	return nil
}

func faultCommand() *cli.Command {
	names := func(kinds []emulator.Fault) string {
		text := make([]string, len(kinds))
		for i, f := range kinds {
			text[i] = string(f)
		}
		return strings.Join(text, ", ")
	}
	return &cli.Command{
		Name:  "fault",
		Usage: "make a key misbehave",
		Description: "KIND of a YubiKey is one of " + names(emulator.Faults) + ".\n" +
			"unplug-at-chunk and unplug-after-write strike once, reject-write and reclaim N times (1 if left out),\n" +
			"bad-crc N times or until clear, slow-open adds N ms, the others last until clear.\n" +
			"Keys that are attached to the kernel cannot have slow-open, exclusive-open and no-permission.\n" +
			"Keys with a smart card also have " + names(emulator.CardFaults) + ".\n" +
			"card-pull-before pulls the whole key when the N-th APDU from now arrives (1 is the next), card-pull-after when\n" +
			"it was carried out; card-status answers the next APDU with status word N (27010 is 6982); the others last until clear.\n" +
			"A Nitrokey 3 has these only. Other Nitrokeys have those of opening, and " + names(emulator.NitrokeyFaults) + ".\n" +
			"pull-before, pull-after and drop strike at the N-th command from now, torn-write at the next slot that is written,\n" +
			"bad-crc N times or until clear; status answers the next command with status N; stuck-busy lasts until clear.",
		ArgsUsage: "SERIAL|NAME|PORT KIND [N]",
		Action: func(c *cli.Context) error {
			if n := c.NArg(); n < 2 || n > 3 {
				return errors.New("fault needs SERIAL KIND [N]; see tokenemu fault --help")
			}
			n := 0
			if s := c.Args().Get(2); s != "" {
				var err error
				if n, err = strconv.Atoi(s); err != nil {
					return fmt.Errorf("%q is not a number", s)
				}
			}
			return advise(control(c).Fault(c.Context, c.Args().Get(0), c.Args().Get(1), n))
		},
	}
}

func listCommand() *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "show every key of the bench",
		ArgsUsage: " ",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON"}},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("list takes no arguments such as %q", c.Args().First())
			}
			keys, err := control(c).List(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				e := json.NewEncoder(c.App.Writer)
				e.SetIndent("", "  ")
				return e.Encode(struct {
					Keys []bussocket.Key `json:"keys"`
				}{keys})
			}
			return table(c, keys)
		},
	}
}

func table(c *cli.Context, keys []bussocket.Key) error {
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PORT\tDEVICE\tFIRMWARE\tSTATE\tHOLDS\tREQUIRED WAIT\tFAULTS\tCARD")
	for _, k := range keys {
		state := "out"
		switch {
		case k.Held:
			state = "held"
		case k.USBPort != "":
			state = "USB " + k.USBPort
		case k.Present:
			state = "in"
		}
		holds, faults := cmp.Or(strings.Join(k.Holds, " "), "-"), cmp.Or(strings.Join(k.Faults, " "), "-")
		wait := time.Duration(k.RequiredWaitUS) * time.Microsecond
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Port, k.Device, k.Firmware, state, holds, wait, faults, cmp.Or(k.Card, "-"))
	}
	return w.Flush()
}

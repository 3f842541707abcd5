package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"tokendesk/device"
	"tokendesk/device/emulator"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve emulated keys until SIGINT or SIGTERM",
		Description: "Keys get the ports emu1, emu2, … in the order given. One line per key is printed once the socket\n" +
			"is there. Keys keep their slots while pulled, and are gone when this command ends.",
		ArgsUsage: " ",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "yubikey", Usage: "a key: `serial=N[,fw=5.4.3][,product=0407][,present=false]`; repeat for more"},
			&cli.BoolFlag{Name: "instant", Usage: "leave out the waiting that real keys require"},
		},
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("serve takes no arguments such as %q; keys are given by --yubikey", c.Args().First())
	}
	if len(c.StringSlice("yubikey")) == 0 {
		return errors.New("there is nothing to serve; name a key with --yubikey serial=12345678")
	}
	var bench []emulator.Options
	var keys []*emulator.YubiKey
	for _, s := range c.StringSlice("yubikey") {
		o, err := parseKey(s)
		if err != nil {
			return err
		}
		if c.Bool("instant") {
			o.Timing = &emulator.Timing{}
		}
		bench = append(bench, o)
		keys = append(keys, emulator.New(o))
	}
	server, err := emulator.Listen(c.String("socket"), keys...)
	if err != nil {
		return err
	}
	for i, o := range bench {
		state := "plugged in"
		if o.Absent {
			state = "not plugged in"
		}
		fmt.Fprintf(c.App.Writer, "emu%d  %s  firmware %s  %s\n", i+1, device.YubiKeyID(o.Serial), o.Firmware, state)
	}
	return server.Serve(c.Context)
}

const keyForm = "a key is serial=N[,fw=5.4.3][,product=0407][,present=false]"

// parseKey reads the value of --yubikey.
func parseKey(s string) (emulator.Options, error) {
	o := emulator.Options{Firmware: device.Version{Major: 5, Minor: 4, Build: 3}}
	seen := map[string]bool{}
	for field := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(field, "=")
		if seen[name] {
			return o, fmt.Errorf("cannot make the key %q: %s is given twice; %s", s, name, keyForm)
		}
		seen[name] = true
		if err := setField(&o, name, value); err != nil {
			return o, fmt.Errorf("cannot make the key %q: %w; %s", s, err, keyForm)
		}
	}
	if !seen["serial"] {
		return o, fmt.Errorf("cannot make the key %q: it has no serial; %s", s, keyForm)
	}
	return o, nil
}

func setField(o *emulator.Options, name, value string) (err error) {
	switch name {
	case "serial":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a serial number", value)
		}
		o.Serial = device.Serial(n)
	case "fw":
		o.Firmware, err = device.ParseVersion(value)
		return err
	case "product":
		n, err := strconv.ParseUint(value, 16, 16)
		if m, known := device.FindModel(device.YubicoVendor, uint16(n)); err != nil || !known || !m.Has(device.OTP) {
			return fmt.Errorf("%q is not the USB product number of a YubiKey with OTP", value)
		}
		o.Product = uint16(n)
	case "present":
		present, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("present is true or false")
		}
		o.Absent = !present
	default:
		return fmt.Errorf("%q is unknown", name)
	}
	return nil
}

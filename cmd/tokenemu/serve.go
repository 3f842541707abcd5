package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
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
			"is there. Keys keep their slots while pulled, and are gone when this command ends.\n" +
			"With vpcd=HOST:PORT a key is a smart card as well, in the reader that pcscd's driver vpcd (Debian's\n" +
			"package vsmartcard-vpcd) has at that port; pcscd may come and go.",
		ArgsUsage: " ",
		Flags:     benchFlags("[,product=0407][,vpcd=HOST:PORT]"),
		Action:    func(c *cli.Context) error { return serve(c, emulator.Listen, 0) },
	}
}

// otpOnly is a YubiKey without other interfaces, which is what an attached key can be.
const otpOnly = 0x0401

func attachCommand() *cli.Command {
	return &cli.Command{
		Name:  "attach",
		Usage: "make emulated keys USB devices of this machine until SIGINT or SIGTERM (as root)",
		Description: "Keys become devices of the kernel, where any program finds them. This needs root and the kernel\n" +
			"module vhci-hcd. One line per key is printed once all are there. The other commands work as with\n" +
			"serve, but nobody can open a key at the socket. When this command ends, the keys are pulled, and gone.\n" +
			"Product 0405 has a smart card as well, which pcscd finds by its driver libccid.",
		ArgsUsage: " ",
		Flags:     benchFlags("[,product=0401]"),
		Action:    func(c *cli.Context) error { return serve(c, emulator.Attach, otpOnly) },
	}
}

func benchFlags(more string) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "yubikey", Usage: "a key: `serial=N[,fw=5.4.3]" + more + "[,present=false]`; repeat for more"},
		&cli.BoolFlag{Name: "instant", Usage: "leave out the waiting that real keys require"},
	}
}

// serve runs the server that open makes of the keys. Those that name no product get the given one; 0 is the
// emulator's own choice.
func serve(c *cli.Context, open func(socket string, keys ...*emulator.YubiKey) (*emulator.Server, error), product uint16) error {
	if c.Args().Present() {
		return fmt.Errorf("%s takes no arguments such as %q; keys are given by --yubikey", c.Command.Name, c.Args().First())
	}
	if len(c.StringSlice("yubikey")) == 0 {
		return fmt.Errorf("there is nothing to %s; name a key with --yubikey serial=12345678", c.Command.Name)
	}
	var keys []*emulator.YubiKey
	for _, s := range c.StringSlice("yubikey") {
		o, err := parseKey(s)
		if err != nil {
			return err
		}
		o.Product = cmp.Or(o.Product, product)
		if c.Bool("instant") {
			o.Timing = &emulator.Timing{}
		}
		keys = append(keys, emulator.New(o))
	}
	server, err := open(c.String("socket"), keys...)
	if err != nil {
		return err
	}
	for _, k := range server.Keys() {
		state := "not plugged in"
		switch {
		case k.USBPort != "":
			state = "USB port " + k.USBPort
		case k.Present:
			state = "plugged in"
		}
		fmt.Fprintf(c.App.Writer, "%s  %s  firmware %s  %s\n", k.Port, device.YubiKeyID(k.Serial), k.Firmware, state)
	}
	return server.Serve(c.Context)
}

const keyForm = "a key is serial=N[,fw=5.4.3][,product=0407][,vpcd=HOST:PORT][,present=false]"

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
	if m, known := device.FindModel(device.YubicoVendor, o.Product); o.VPCD != "" && known && !m.Has(device.CCID) {
		return o, fmt.Errorf("cannot make the key %q: it has a smart card, which product %04x has not; %s", s, o.Product, keyForm)
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
	case "vpcd":
		host, port, err := net.SplitHostPort(value)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" {
			return fmt.Errorf("%q is not the HOST:PORT where a reader of vpcd waits for a card", value)
		}
		o.VPCD = value
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

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
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
		Description: "Keys get the ports emu1, emu2, … in the order given, YubiKeys before Nitrokeys. One line per key is printed\n" +
			"once the socket is there. Keys keep what they hold while pulled, and are gone when this command ends.\n" +
			"With vpcd=HOST:PORT a YubiKey is a smart card as well, in the reader that pcscd's driver vpcd (Debian's\n" +
			"package vsmartcard-vpcd) has at that port; pcscd may come and go. A Nitrokey 3 (model=3) is nothing but a\n" +
			"smart card. The admin PIN of other Nitrokeys is 12345678.",
		ArgsUsage: " ",
		Flags:     benchFlags("[,product=0407][,vpcd=HOST:PORT]", "pro|storage|librem|3", "[,vpcd=HOST:PORT]"),
		Action:    func(c *cli.Context) error { return serve(c, emulator.Listen[emulator.Token], 0) },
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
		Flags:     benchFlags("[,product=0401]", "pro|librem", ""),
		Action:    func(c *cli.Context) error { return serve(c, emulator.Attach[emulator.Token], otpOnly) },
	}
}

func benchFlags(more, models, moreOfNitrokey string) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "yubikey", Usage: "a YubiKey: `serial=N[,fw=5.4.3]" + more + "[,present=false]`; repeat for more"},
		&cli.StringSliceFlag{Name: "nitrokey", Usage: "a Nitrokey: `serial=00005d19[,model=" + models + "][,fw=0.15.0]" + moreOfNitrokey + "[,present=false]`; repeat for more"},
		&cli.BoolFlag{Name: "instant", Usage: "leave out the waiting that real keys require"},
	}
}

// serve runs the server that open makes of the keys. YubiKeys that name no product get the given one; 0 is the
// emulator's own choice.
func serve(c *cli.Context, open func(socket string, tokens ...emulator.Token) (*emulator.Server, error), product uint16) error {
	if c.Args().Present() {
		return fmt.Errorf("%s takes no arguments such as %q; keys are given by --yubikey and --nitrokey", c.Command.Name, c.Args().First())
	}
	tokens, err := tokensOf(c, product)
	if err != nil {
		return err
	}
	if len(tokens) == 0 {
		return fmt.Errorf("there is nothing to %s; name a key with --yubikey serial=12345678 or --nitrokey serial=00005d19", c.Command.Name)
	}
	server, err := open(c.String("socket"), tokens...)
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
		fmt.Fprintf(c.App.Writer, "%s  %s  firmware %s  %s\n", k.Port, k.Device, k.Firmware, state)
	}
	return server.Serve(c.Context)
}

// tokensOf makes the tokens that the flags name.
func tokensOf(c *cli.Context, product uint16) (tokens []emulator.Token, err error) {
	var timing *emulator.Timing
	if c.Bool("instant") {
		timing = &emulator.Timing{}
	}
	for _, s := range c.StringSlice("yubikey") {
		o, err := parseKey(s)
		if err != nil {
			return nil, err
		}
		o.Product, o.Timing = cmp.Or(o.Product, product), timing
		tokens = append(tokens, emulator.New(o))
	}
	for _, s := range c.StringSlice("nitrokey") {
		o, err := parseNitrokey(s)
		if err != nil {
			return nil, err
		}
		o.Timing = timing
		if o.Product == nitrokey3 {
			tokens = append(tokens, emulator.NewNitrokey3(o))
		} else {
			tokens = append(tokens, emulator.NewNitrokeyPro(o))
		}
	}
	return tokens, nil
}

const (
	keyForm      = "a YubiKey is serial=N[,fw=5.4.3][,product=0407][,vpcd=HOST:PORT][,present=false]"
	nitrokeyForm = "a Nitrokey is serial=00005d19[,model=pro][,fw=0.15.0][,vpcd=HOST:PORT][,present=false]"
)

// nitrokey3 is a product that has no HID interface.
const nitrokey3 = 0x42B2

// nitrokeys are the models of emulated Nitrokeys.
var nitrokeys = map[string]struct {
	vendor, product uint16
	firmware        device.Version // if none is named
}{
	"pro":     {device.NitrokeyVendor, 0x4108, device.Version{Minor: 15}},
	"storage": {device.NitrokeyVendor, 0x4109, device.Version{Minor: 57}},
	"librem":  {device.PurismVendor, 0x4C4B, device.Version{Minor: 10}},
	"3":       {device.NitrokeyVendor, nitrokey3, device.Version{}}, // the emulator's choice
}

// fields divides NAME=VALUE,… and has each set.
func fields(s string, set func(name, value string) error) error {
	seen := map[string]bool{}
	for field := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(field, "=")
		if seen[name] {
			return fmt.Errorf("%s is given twice", name)
		}
		seen[name] = true
		if err := set(name, value); err != nil {
			return err
		}
	}
	if !seen["serial"] {
		return errors.New("it has no serial")
	}
	return nil
}

// parseKey reads the value of --yubikey.
func parseKey(s string) (emulator.Options, error) {
	o := emulator.Options{Firmware: device.Version{Major: 5, Minor: 4, Build: 3}}
	err := fields(s, func(name, value string) error { return setField(&o, name, value) })
	if m, known := device.FindModel(device.YubicoVendor, o.Product); err == nil && o.VPCD != "" && known && !m.Has(device.CCID) {
		err = fmt.Errorf("it has a smart card, which product %04x has not", o.Product)
	}
	if err != nil {
		return o, fmt.Errorf("cannot make the key %q: %w; %s", s, err, keyForm)
	}
	return o, nil
}

// parseNitrokey reads the value of --nitrokey.
func parseNitrokey(s string) (emulator.Options, error) {
	model := nitrokeys["pro"]
	var o emulator.Options
	err := fields(s, func(name, value string) (err error) {
		switch name {
		case "serial":
			n, err := strconv.ParseUint(value, 16, 32)
			if err != nil {
				return fmt.Errorf("%q is not a serial number in hexadecimal", value)
			}
			o.Serial = device.Serial(n)
		case "model":
			known := false
			if model, known = nitrokeys[value]; !known {
				return fmt.Errorf("%q is not a model; the models are %s", value, strings.Join(slices.Sorted(maps.Keys(nitrokeys)), ", "))
			}
		default:
			return setField(&o, name, value)
		}
		return nil
	})
	switch {
	case err != nil:
	case o.Product != 0:
		err = errors.New("the product of a Nitrokey is told by its model")
	case o.VPCD != "" && model.product != nitrokey3:
		err = errors.New("only model 3 has an emulated smart card")
	}
	if err != nil {
		return o, fmt.Errorf("cannot make the key %q: %w; %s", s, err, nitrokeyForm)
	}
	o.Vendor, o.Product, o.Firmware = model.vendor, model.product, cmp.Or(o.Firmware, model.firmware)
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

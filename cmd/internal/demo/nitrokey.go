package main

import (
	"context"
	"fmt"
	"strings"

	"tokendesk/device"
)

// carolsKey is a Nitrokey Pro, and its admin PIN that of the factory.
const (
	carolsKey device.Serial = 0x5D19
	adminPIN                = "12345678"
)

// otherVendor enrolls a Nitrokey, which nobody has to touch: the desk has its codes calculated.
func (s *story) otherVendor(ctx context.Context) error {
	id := device.NitrokeyID(carolsKey)
	token := string(device.AppToken(id, "hotp1"))
	if err := s.Emulator.Insert(ctx, fmt.Sprintf("%08x", uint32(carolsKey))); err != nil {
		return err
	}
	if err := s.AwaitDevices(ctx, id); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "  $ tokendesk password %s --pin-stdin\n", token)
	cmd := s.Command(ctx, "tokendesk", "password", token, "--pin-stdin")
	cmd.Stdin = strings.NewReader(adminPIN + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("tokendesk password: %w: %s", err, out)
	}
	s.show(strings.TrimSpace(string(out)))
	for _, args := range [][]string{
		{"enroll", "--device", string(id), "--app", "hotp1", "--user", "carol"},
		{"test", "--capture", token},
	} {
		if err := s.desk(ctx, args...); err != nil {
			return err
		}
	}
	seed, err := s.seed(ctx, token)
	if err != nil {
		return err
	}
	code, err := s.nextCode(ctx, token, seed, "the directory's seed")
	if err != nil {
		return err
	}
	return s.login(ctx, "carol", code, true)
}

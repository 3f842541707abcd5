// Command demo plays the desk's whole story on real parts, and ends non-zero at the first thing that is
// not so. It can also leave its world running for somebody to try things by hand.
//
//	demo [-bin DIR]        play the story
//	demo -as USER          play it on a workstation, root being the hand that plugs and touches: real USB, /dev/tpmrm0
//	demo [-bin DIR] up     start the world and print how to reach it
//	demo down              end it
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

// limit ends a story that hangs.
const limit = 5 * time.Minute

func main() {
	bin := flag.String("bin", ".bin", "directory of tokendesk, tokendeskd and tokenemu")
	as := flag.String("as", "", "play on this machine's kernel, with the desk run by `USER`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Arg(0), *bin, *as); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, what, bin, as string) error {
	switch what {
	case "":
		o := options(bin)
		if as != "" {
			var err error
			if o.Officer, err = world.Credential(as); err != nil {
				return err
			}
			o.Keys = o.Keys[:2]
		}
		return play(ctx, o)
	case "up":
		return up(ctx, bin)
	case "keep":
		return keep(ctx, bin)
	case "down":
		return down(ctx)
	}
	return fmt.Errorf("there is no %q: play, up or down", what)
}

func options(bin string) world.Options {
	o := world.Options{Bin: bin, Backups: true, Pair: true, Cards: 1, Keys: []string{
		fmt.Sprintf("serial=%s,fw=5.4.3", alicesKey), fmt.Sprintf("serial=%s,fw=5.2.7", spareKey),
	}}
	o.Nitrokeys = []string{fmt.Sprintf("serial=%08x,present=false", uint32(carolsKey))}
	for i := range drawerKeys {
		o.Keys = append(o.Keys, fmt.Sprintf("serial=%s,fw=5.4.3,present=false", drawerKey+device.Serial(i)))
	}
	return o
}

func play(ctx context.Context, o world.Options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	w, err := world.Start(o)
	if err != nil {
		return err
	}
	defer func() {
		logs := w.Logs()
		if stopErr := w.Stop(); err == nil {
			err = stopErr
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "\n%s\nNOT SO. ", logs)
			return
		}
		fmt.Printf("\nAll of it is so. %.1f seconds.\n", time.Since(begin).Seconds())
	}()
	parts := "A software TPM, two OpenLDAP servers with the OTP overlay that replicate each other, two emulated YubiKeys, one of them in a card reader as well, and the desk are running."
	if o.Officer != nil {
		parts = "Two emulated YubiKeys are on the kernel's USB; a TPM, two OpenLDAP servers and the desk, run without root, are at work."
	}
	fmt.Println(parts)
	return (&story{w, os.Stdout}).play(ctx)
}

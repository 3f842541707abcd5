// Command demo plays the desk's whole story on real parts, and ends non-zero at the first thing that is
// not so. It can also leave its world running for somebody to try things by hand.
//
//	demo [-bin DIR]        play the story
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
)

// limit ends a story that hangs.
const limit = 2 * time.Minute

func main() {
	bin := flag.String("bin", ".bin", "directory of tokendesk, tokendeskd and tokenemu")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Arg(0), *bin); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, what, bin string) error {
	switch what {
	case "":
		return play(ctx, bin)
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
	return world.Options{Bin: bin, Keys: []string{
		fmt.Sprintf("serial=%s,fw=5.4.3", alicesKey), fmt.Sprintf("serial=%s,fw=5.2.7", spareKey),
	}}
}

func play(ctx context.Context, bin string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	w, err := world.Start(options(bin))
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
	fmt.Println("A software TPM, an OpenLDAP server with the OTP overlay, two emulated YubiKeys and the desk are running.")
	return (&story{w, os.Stdout}).play(ctx)
}

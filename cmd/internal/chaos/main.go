// Command chaos proves that desk and directory agree in the end, whatever happens to them meanwhile.
//
//	chaos [-bin DIR] [-for 60s] [-seed N] [-keys N] [-log FILE]
//
// The real daemon pushes to two real slapds that replicate each other, in network namespaces of their own. Officers enroll, resync,
// test, assign, unassign, disable, enable and reissue emulated keys, and users log in at either server, while daemon and servers
// are killed, servers are paused, and the lines between the three are cut, at random moments. Then everything is healed,
// and unfinished work is resolved. What has to be so afterwards is told at trial and at account.
//
// It needs root, iproute2, swtpm and slapd. It ends with 1 if anything is not so. The seed gives the same plan again, but
// not the same run: that depends on the machine as well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	bin    string
	length time.Duration // of the chaos
	seed   uint64
	keys   int
	log    string // where the programs' logs go if anything is not so
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", ".bin", "directory of tokendesk, tokendeskd and tokenemu")
	flag.DurationVar(&o.length, "for", time.Minute, "how long there is chaos")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of what is random")
	flag.IntVar(&o.keys, "keys", 8, "how many keys there are")
	flag.StringVar(&o.log, "log", "", "`FILE` for the programs' logs, if anything is not so")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		os.Exit(1)
	}
}

// run makes chaos, ends it, and looks what is left of it.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	fmt.Fprintf(out, "seed %d\n", o.seed)
	s, err := newStage(o, out)
	if err != nil {
		return err
	}
	defer func() {
		logs := s.Logs()
		if strings.Contains(logs, "DATA RACE") {
			err = joined(err, errors.New("the race detector has found something"))
		}
		if err = joined(err, s.close()); err != nil {
			fmt.Fprintf(out, "%s\n", tail(logs))
			if o.log != "" {
				err = joined(err, os.WriteFile(o.log, []byte(logs), 0o600))
			}
			err = fmt.Errorf("%w; repeat with -seed %d", err, o.seed)
		}
	}()
	for _, act := range []func(context.Context) error{s.chaos, s.heal, s.trial} {
		if err := act(ctx); err != nil {
			return errors.Join(err, s.account(context.WithoutCancel(ctx)), s.failed())
		}
	}
	if err := s.account(ctx); err != nil {
		return err
	}
	if err := s.failed(); err != nil {
		return err
	}
	fmt.Fprintln(out, s.verdict())
	return nil
}

// tail is the end of a log.
func tail(text string) string {
	const last = 6 << 10
	return text[max(0, len(text)-last):]
}

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	patienceOfPeople = time.Second
	turn             = 100 * time.Millisecond
)

// working shows what goes on, once it has gone on for a second, until stop is called. It shows nothing where nobody
// watches: in a pipe, or for programs.
func working(c *cli.Context, doing string) (stop func()) {
	s := screenOn(c.App.ErrWriter)
	if !s.terminal || c.Bool("json") || os.Getenv("TERM") == "dumb" {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		begin := time.Now()
		select {
		case <-end:
			return
		case <-time.After(patienceOfPeople):
		}
		ticks := time.NewTicker(turn)
		defer ticks.Stop()
		for i := 0; ; i++ {
			line := fmt.Sprintf("%c %s… %d s", []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")[i%10], doing, int(time.Since(begin).Seconds()))
			s.printf("\r%s", cut(line, s.width-1))
			select {
			case <-end:
				s.printf("\r\x1b[K")
				return
			case <-ticks.C:
			}
		}
	}()
	return func() { close(end); <-ended }
}

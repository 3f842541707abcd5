package main

import (
	"bufio"
	"context"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tokendesk/cmd/internal/api"
)

// endPatience is how long the daemon has to answer what was done, once a capture is to end.
const endPatience = 10 * time.Second

// capturing has the daemon listen to inserted keys, and tells what happens, until all is done. Enter at a terminal, or Ctrl-C, ends
// it in order: what was done by then is kept, and answered.
func capturing(c *cli.Context, path string, tell func(api.CaptureEvent)) (api.CaptureEvent, error) {
	ctx, hangUp := context.WithCancel(context.WithoutCancel(c.Context))
	defer hangUp()
	name, over := make(chan string, 1), make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-c.Context.Done():
		case <-entered(c):
		case <-over:
			return
		}
		time.AfterFunc(endPatience, hangUp)
		select {
		case n := <-name:
			_ = daemon(c).EndCapture(ctx, n) // if that fails, it is over already, or patience ends it
		case <-over:
		}
	}()
	return daemon(c).Capture(ctx, path, func(e api.CaptureEvent) {
		if e.Capture != "" {
			name <- e.Capture
		}
		tell(e)
	})
}

// entered is closed when somebody at a terminal presses Enter.
func entered(c *cli.Context) <-chan struct{} {
	pressed := make(chan struct{})
	if in, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		go func() {
			for lines := bufio.NewScanner(in); lines.Scan(); {
				if lines.Text() == "" { // else a key that is not listened to has typed it
					close(pressed)
					return
				}
			}
		}()
	}
	return pressed
}

// identifyCapture says whose the inserted key is that somebody touches.
func identifyCapture(c *cli.Context) error {
	out := output(c)
	var opening []string
	last, err := capturing(c, "/v1/identify/capture", func(e api.CaptureEvent) {
		if out.json {
			out.printJSON(e)
			return
		}
		if e.Capture != "" {
			opening = e.Devices
		}
		if e.Key != nil {
			tellKey(out, *e.Key, &opening)
		}
	})
	if err != nil {
		return err
	}
	found := *last.Identified
	if out.json {
		if err := out.printJSON(last); err != nil {
			return err
		}
		return identifiedCode(found.Identified)
	}
	out.say("%s typed these codes.", found.Device)
	printIdentified(out, found.Identified)
	if found.Warning != "" {
		out.warn("%s", harmless(found.Warning))
	}
	return identifiedCode(found.Identified)
}

// tellKey tells what became of a key, and asks for a touch when it needs one, or when none is being opened any more.
func tellKey(out screen, k api.CapturedKey, opening *[]string) {
	switch {
	case k.State == "away":
		out.wait("%s: %s", k.Device, harmless(k.Text))
	case k.State == "no code":
		out.wait("%s: that was not a code", k.Device)
	case k.Codes == 1:
		out.touch("touch %s again", k.Device)
	case k.Codes > 1:
		out.touch("touch %s once more: %s", k.Device, harmless(k.Text))
	}
	if i := slices.Index(*opening, k.Device); i >= 0 {
		if *opening = slices.Delete(*opening, i, i+1); len(*opening) == 0 {
			out.touch("touch the key whose owner is sought; if nothing comes, for three seconds")
		}
	}
}

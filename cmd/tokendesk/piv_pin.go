package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

// The PIN of a card goes to its holder and to nobody else. The daemon gives it out once; here it goes from locked memory
// straight to the screen, which is cleared again, or to a printer. It is never in JSON, in an argument or in a file.

// handing is how a holder gets the PIN.
type handing int

const (
	handLater  handing = iota // it stays in the vault, for tokendesk piv pin
	handScreen                // it is shown once
	handLetter                // it is printed
	handChosen                // the holder types one of their own
)

func pinFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "letter", Usage: "write the PIN as a letter to the standard output, which is a printer's: | lp"},
		&cli.BoolFlag{Name: "holder-sets-pin", Usage: "have the holder type a PIN of their own, twice, which nobody sees"},
	}
}

// handingAsked is how the flags want the PIN handed over. What cannot be is refused here, before anything is done: a PIN is
// given out once.
func handingAsked(c *cli.Context) (handing, error) {
	switch letter, chosen := c.Bool("letter"), c.Bool("holder-sets-pin"); {
	case letter && chosen:
		return 0, usage("either --letter or --holder-sets-pin")
	case c.Bool("json") && letter:
		return 0, usage("a PIN is never in JSON, and a letter is no JSON either: leave out --json, or --letter")
	case letter:
		return handLetter, printer(c.App.Writer)
	case chosen:
		if _, ok := terminal(c.App.Reader); !ok {
			return 0, usage("nobody is at a terminal to type a PIN")
		}
		return handChosen, nil
	}
	_, reads := terminal(c.App.Reader)
	if _, shows := terminal(c.App.Writer); reads && shows && os.Getenv("TERM") != "dumb" && !c.Bool("json") {
		return handScreen, nil
	}
	return handLater, nil
}

func terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// printer says why a stream is not one that a PIN may be printed to.
func printer(w io.Writer) error {
	f, ok := w.(*os.File)
	if !ok {
		return usage("a PIN letter goes to a printer: | lp")
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return usage("cannot use the standard output: %v", err)
	case term.IsTerminal(int(f.Fd())):
		return usage("a PIN letter goes to a printer, and the standard output is a terminal: | lp; without --letter the PIN is shown here, once")
	case info.Mode().IsRegular():
		return usage("a PIN letter in a file is a PIN for everybody who finds it: send it to a printer instead: | lp")
	}
	return nil
}

func pivPIN(c *cli.Context) error {
	device, path, err := pivPath(c)
	if err != nil {
		return err
	}
	how, err := handingAsked(c)
	if err != nil {
		return err
	}
	if how == handLater {
		return usage("a PIN is for its holder's eyes, and nobody is at a terminal: print it with --letter | lp, or run this at a terminal")
	}
	return handPIN(c, device, path, how)
}

// handPIN gives the PIN to its holder.
func handPIN(c *cli.Context, device, path string, how handing) error {
	switch how {
	case handScreen:
		return showPIN(c, device, path)
	case handLetter:
		return printLetter(c, device, path)
	case handChosen:
		return choosePIN(c, device, path)
	}
	if out := output(c); !out.json {
		out.wait("its PIN is in the vault, for its holder: tokendesk piv pin %s", device)
	}
	return nil
}

// otherScreen is xterm's alternate screen, of which nothing stays in the terminal's memory of lines (ctlseqs, private mode 1049).
const (
	otherScreen = "\x1b[?1049h\x1b[2J\x1b[H"
	thisScreen  = "\x1b[2J\x1b[H\x1b[?1049l"
)

func showPIN(c *cli.Context, device, path string) (err error) {
	out := output(c)
	out.say("The PIN of %s is shown once, and then the desk does not have it any more. Turn the screen to its holder.", device)
	if _, err := ask(c, "Show it now: Enter (later: Ctrl-C) "); err != nil {
		return notTaken(device, err)
	}
	pin, err := takePIN(c, path)
	if err != nil {
		return err
	}
	defer pin.Wipe()
	screen, _ := terminal(c.App.Writer)
	fmt.Fprintf(screen, "%s\n  PIN of %s:\n\n      ", otherScreen, device)
	_, err = screen.Write(pin.Reveal())
	pin.Wipe()
	if err == nil {
		_, err = ask(c, "\n\n  Remember it, write it nowhere. Enter clears it. ")
	}
	io.WriteString(screen, thisScreen)
	if err != nil && c.Context.Err() == nil {
		return api.Errorf(api.Internal, "cannot show the PIN: %v; tokendesk piv unblock %s makes another one", err, device)
	}
	out.done("the PIN was shown; forgotten or not seen, it is replaced by tokendesk piv unblock %s", device)
	return nil
}

// notTaken says that the PIN can still be shown.
func notTaken(device string, err error) error {
	if known := (*api.Error)(nil); errors.As(err, &known) {
		return api.Errorf(known.Code, "the PIN was not shown, and is still in the vault: tokendesk piv pin %s", device)
	}
	return err
}

// takePIN has the daemon give the PIN out, for the only time.
func takePIN(c *cli.Context, path string) (secret.Secret, error) {
	return daemon(c).TakeSecret(c.Context, path+"/pin")
}

// printLetter prints the PIN, with nothing on the page that says which door it opens but the card's number.
func printLetter(c *cli.Context, device, path string) error {
	var card api.PIV
	if err := daemon(c).Get(c.Context, path, nil, &card); err != nil {
		return err
	}
	pin, err := takePIN(c, path)
	if err != nil {
		return err
	}
	defer pin.Wipe()
	head, foot := letter(device, card, time.Now())
	_, err = io.WriteString(c.App.Writer, head)
	if err == nil {
		_, err = c.App.Writer.Write(pin.Reveal())
	}
	if err == nil {
		_, err = io.WriteString(c.App.Writer, foot)
	}
	if err != nil {
		return api.Errorf(api.Internal, "the PIN letter was not printed: %v; tokendesk piv unblock %s makes another PIN", err, device)
	}
	screenOn(c.App.ErrWriter).done("the PIN letter is printed; the desk does not have the PIN any more")
	return nil
}

// letter is what stands before the PIN and after it.
func letter(device string, card api.PIV, now time.Time) (head, foot string) {
	holder := "its holder"
	if card.Token != nil && card.Token.Owner != "" {
		holder = harmless(card.Token.Owner)
	}
	mark := ""
	if card.Emulated {
		mark = "\n    EMULATED: not a hardware token, it protects nothing\n"
	}
	head = fmt.Sprintf("\n\n\n    PIN LETTER\n%s\n    For        %s\n    Card       %s\n    Date       %s\n\n\n    PIN        ", mark, holder, device, day(now))
	foot = "\n\n\n" + strings.Join([]string{
		"    Nobody else has this PIN, and the desk does not keep it. Learn it, then destroy",
		"    this letter. Never keep it together with the card, and tell it to nobody:",
		"    also not to the desk. After three wrong tries in a row the card takes it no",
		"    more; the desk can then give it another one.",
	}, "\n") + "\n\f"
	return head, foot
}

// Lengths of a PIN, in bytes (SP 800-73-4 part 2, section 2.4.3).
const (
	minCardPIN = 6
	maxCardPIN = 8
)

// choosePIN has the holder type a PIN, twice, in the place of the one that nobody has seen.
func choosePIN(c *cli.Context, device, path string) error {
	pin, err := chosenPIN(c, device)
	if err != nil {
		return notTaken(device, err)
	}
	defer pin.Wipe()
	if err := daemon(c).PostSecret(c.Context, path+"/pin/set", nil, new(struct{}), pin); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(struct{}{})
	}
	out.done("the card has the PIN that was typed; the desk does not have it")
	return nil
}

func chosenPIN(c *cli.Context, device string) (secret.Secret, error) {
	fmt.Fprintf(c.App.ErrWriter, "For the holder of %s: choose a PIN of %d to %d digits or letters.\n", device, minCardPIN, maxCardPIN)
	for {
		first, err := typedPIN(c, "PIN")
		if err != nil {
			return first, err
		}
		if n := first.Len(); n < minCardPIN || n > maxCardPIN {
			first.Wipe()
			fmt.Fprintf(c.App.ErrWriter, "It has %d to %d characters.\n", minCardPIN, maxCardPIN)
			continue
		}
		again, err := typedPIN(c, "The same again")
		same := err == nil && again.Equal(first)
		again.Wipe()
		if same {
			return first, nil
		}
		first.Wipe()
		if err != nil {
			return secret.Secret{}, err
		}
		fmt.Fprintln(c.App.ErrWriter, "The two differ.")
	}
}

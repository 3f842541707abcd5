package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

// PINs and identities come from a terminal, a file or standard input: what is in an argument or in the environment, every
// program of this user can read. They are read into locked memory and wiped.

// maxSecret is the longest PIN or identity file, in bytes. Two of them fit into one request.
const maxSecret = 4096

// newPIN asks for the PIN that a vault is to have, twice. Its zero value means that it is to open by itself.
func newPIN(c *cli.Context, word string) (secret.Secret, error) {
	if c.Bool("no-pin") {
		if c.IsSet("pin-file") || c.IsSet("pin-stdin") {
			return secret.Secret{}, usage("either --no-pin, or a PIN")
		}
		return secret.Secret{}, nil
	}
	p, typed, err := pin(c, "New "+word)
	switch {
	case err != nil:
		return p, err
	case p.IsZero():
		return p, usage("an empty %s protects nothing; to have none, say --no-pin", word)
	case !typed:
		return p, nil
	}
	again, _, err := pin(c, "The same again")
	defer again.Wipe()
	if err == nil && !again.Equal(p) {
		err = usage("the two differ; nothing was changed")
	}
	if err != nil {
		p.Wipe()
		return secret.Secret{}, err
	}
	return p, nil
}

// pin takes a PIN from where the flags say, and tells whether somebody typed it.
func pin(c *cli.Context, prompt string) (p secret.Secret, typed bool, err error) {
	switch file := c.Path("pin-file"); {
	case c.Bool("pin-stdin") && file != "":
		return p, false, usage("the PIN comes either from --pin-file or from --pin-stdin")
	case c.Bool("pin-stdin"):
		p, err = readLine(c.App.Reader)
		return p, false, err
	case file != "":
		p, err = secretFile(file)
		return p, false, err
	}
	p, err = typedPIN(c, prompt)
	return p, true, err
}

func secretFile(path string) (secret.Secret, error) {
	p, err := secret.ReadFile(path)
	if err != nil {
		return p, usage("cannot read the PIN: %v", err)
	}
	return p, nil
}

// typedPIN asks at the terminal: that of standard input, or if the identity comes from there, the one that the command was
// started at.
func typedPIN(c *cli.Context, prompt string) (secret.Secret, error) {
	tty, ok := c.App.Reader.(*os.File)
	if c.Path("identity") == "-" {
		var err error
		if tty, err = os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
			defer tty.Close()
		}
		ok = err == nil
	}
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return secret.Secret{}, usage("nobody is at a terminal to type the PIN: name its file with --pin-file, or give it with --pin-stdin")
	}
	return readHidden(c.Context, tty, func() { fmt.Fprintf(c.App.ErrWriter, "%s: ", prompt) }, func() { fmt.Fprintln(c.App.ErrWriter) })
}

// readHidden reads a line without showing it. It calls prompt once nothing is shown any more, and then, at the end, after:
// the terminal has not shown Enter either. Ctrl-C ends it at once, and leaves the terminal as it was.
func readHidden(ctx context.Context, tty *os.File, prompt, after func()) (secret.Secret, error) {
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return secret.Secret{}, usage("cannot use the terminal: %v", err)
	}
	hidden := *before
	hidden.Lflag = hidden.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return secret.Secret{}, usage("cannot use the terminal: %v", err)
	}
	defer func() {
		unix.IoctlSetTermios(fd, unix.TCSETS, before)
		after()
	}()
	prompt()
	type line struct {
		s   secret.Secret
		err error
	}
	read := make(chan line, 1)
	go func() {
		s, err := readLine(tty)
		read <- line{s, err}
	}()
	select {
	case l := <-read:
		return l.s, l.err
	case <-ctx.Done():
		return secret.Secret{}, api.Errorf(api.Refused, "interrupted; nothing was changed")
	}
}

// readLine reads up to the end of a line, byte by byte: what follows is for whoever reads next.
func readLine(r io.Reader) (secret.Secret, error) {
	return gather(func(b []byte) (int, error) {
		for n := range b {
			switch k, err := r.Read(b[n : n+1]); {
			case err == io.EOF && n > 0:
				return n, nil
			case err == io.EOF:
				return 0, usage("no PIN came: the input has ended")
			case err != nil:
				return 0, usage("cannot read the PIN: %v", err)
			case k == 1 && b[n] == '\n':
				return n, nil
			}
		}
		return 0, usage("the PIN has more than %d bytes", len(b)-1)
	})
}

// gather makes a secret of what fill puts into locked memory.
func gather(fill func([]byte) (int, error)) (s secret.Secret, err error) {
	wide, err := secret.Make(maxSecret+1, func([]byte) error { return nil })
	if err != nil {
		return s, err
	}
	defer wide.Wipe()
	n, err := fill(wide.Reveal())
	if err != nil {
		return s, err
	}
	return secret.Make(n, func(b []byte) error { copy(b, wide.Reveal()); return nil })
}

// readIdentity reads an age identity file.
func readIdentity(c *cli.Context, path string) (secret.Secret, error) {
	var in io.Reader = c.App.Reader
	if path == "-" {
		if c.Bool("pin-stdin") {
			return secret.Secret{}, usage("standard input holds either the PIN or the identity: name a file for one of them")
		}
	} else {
		f, err := os.Open(path)
		if err != nil {
			return secret.Secret{}, usage("cannot read the identity: %v", err)
		}
		defer f.Close()
		in = f
	}
	return gather(func(b []byte) (int, error) {
		n, err := io.ReadFull(in, b)
		switch {
		case err == nil:
			return 0, usage("%s is no identity file: it has more than %d bytes", path, maxSecret)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return n, nil
		}
		return 0, usage("cannot read the identity: %v", err)
	})
}

func wipe(secrets ...secret.Secret) {
	for _, s := range secrets {
		s.Wipe()
	}
}

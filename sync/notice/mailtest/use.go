package mailtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Switch is a way in which the server behaves.
type Switch string

// Switches.
const (
	Greylist  Switch = "greylist" // recipients are deferred (451)
	Censor    Switch = "censor"   // no text is taken (550)
	MustLogIn Switch = "login"    // mail is taken of those who have logged in
	OldLogin  Switch = "old"      // by LOGIN alone
	NoTLS     Switch = "clear"    // STARTTLS is not offered
)

// Without is the switch by which a mailbox is not there (550).
func Without(name string) Switch { return Switch("without-" + name) }

// Hangup is the switch by which the server breaks the line off when a mailbox is named (421).
func Hangup(name string) Switch { return Switch("hangup-" + name) }

// Set turns a switch. The server looks at it with its next command.
func (s *Server) Set(w Switch, on bool) error {
	path := filepath.Join(s.dir, "switches", string(w))
	if on {
		return os.WriteFile(path, nil, 0o644)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Mail is one that has arrived.
type Mail struct {
	Header mail.Header // with Envelope-To and Return-Path as the server has added them
	Body   string      // decoded
}

// Subject is the decoded subject.
func (m Mail) Subject() string {
	text, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		return m.Header.Get("Subject")
	}
	return text
}

// Arrived returns the mails to an address, or all if it is empty, in the order in which they came.
func (s *Server) Arrived(to string) (all []Mail, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "mail", "new"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	came := func(e os.DirEntry) int64 {
		info, err := e.Info()
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int { return cmp.Compare(came(a), came(b)) })
	for _, e := range entries {
		m, err := read(filepath.Join(s.dir, "mail", "new", e.Name()))
		if err != nil {
			return nil, err
		}
		if to == "" || m.Header.Get("Envelope-To") == to {
			all = append(all, m)
		}
	}
	return all, nil
}

func read(path string) (Mail, error) {
	f, err := os.Open(path)
	if err != nil {
		return Mail{}, err
	}
	defer f.Close()
	m, err := mail.ReadMessage(f)
	if err != nil {
		return Mail{}, fmt.Errorf("%s is no mail: %w", path, err)
	}
	var body io.Reader = m.Body
	if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	return Mail{m.Header, string(text)}, err
}

// Await waits until so many mails to an address have arrived, and returns them.
func (s *Server) Await(ctx context.Context, to string, n int) ([]Mail, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := s.Arrived(to)
		if err != nil || len(all) >= n {
			return all, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return all, fmt.Errorf("%d mails to %s have arrived, not %d: %w", len(all), to, n, ctx.Err())
		}
	}
}

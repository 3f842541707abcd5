package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"tokendesk/cmd/internal/api"
	"tokendesk/sync/notice/mailtest"
)

func cmdMailServer(ts *testscript.TestScript, _ bool, args []string) {
	m := on(ts).Mail
	switch args[0] {
	case "stop":
		m.Stop()
	case "start":
		ts.Check(m.Restart())
	case "hang":
		ts.Check(m.Pause())
	case "answer":
		ts.Check(m.Resume())
	case "words":
		text := strings.Replace(ts.ReadFile(on(ts).Config), "[notices]\n", fmt.Sprintf("[notices]\ntemplates = %q\n", ts.MkAbs(args[1])), 1)
		ts.Check(os.WriteFile(on(ts).Config, []byte(text), 0o600))
		cmdDaemon(ts, false, []string{"stop"})
		cmdDaemon(ts, false, []string{"start"})
	default:
		ts.Check(m.Set(mailtest.Switch(args[0]), args[1] == "on"))
	}
}

// cmdInbox prints a mail as its holder sees it, and how it was sent.
func cmdInbox(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := on(ts).Mail.Await(ctx, args[0]+"@"+mailtest.Domain, n)
	ts.Check(err)
	if len(all) != n {
		ts.Fatalf("%s has got %d mails, not %d", args[0], len(all), n)
	}
	if n == 0 {
		return
	}
	last := all[n-1]
	for _, name := range []string{"From", "To", "Reply-To", "Message-Id", "Received"} {
		fmt.Fprintf(ts.Stdout(), "%s: %s\n", name, last.Header.Get(name))
	}
	fmt.Fprintf(ts.Stdout(), "Subject: %s\n\n%s", last.Subject(), last.Body)
}

// cmdNoticed waits until a notice is in some state, and sets NOTICE to its number.
func cmdNoticed(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "until a notice is "+args[0], func(ctx context.Context) bool {
		var found api.Notices
		ts.Check(on(ts).Client.Get(ctx, "/v1/notices", nil, &found))
		for _, n := range found.Notices {
			if n.State == args[0] {
				ts.Setenv("NOTICE", strconv.FormatUint(n.ID, 10))
				return true
			}
		}
		return false
	})
}

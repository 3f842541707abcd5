package synctest_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/synctest"
	"tokendesk/vault/secret"
)

func startNetwork(t *testing.T) *synctest.Network {
	t.Helper()
	n, err := synctest.StartNetwork()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestNetwork(t *testing.T) {
	n := startNetwork(t)
	p, err := synctest.StartPairIn(n, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	dial := func(i int, limit time.Duration) (*ldap.Conn, error) {
		s := p.Providers[i]
		return ldap.DialURL(s.TLSURL, ldap.DialWithDialer(&net.Dialer{Timeout: limit}), ldap.DialWithTLSConfig(&tls.Config{RootCAs: roots(t, s)}))
	}
	var ends [2]*ldap.Conn
	for i, s := range p.Providers {
		if ends[i], err = dial(i, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
		if err := ends[i].Bind(s.BindDN, s.Password); err != nil {
			t.Fatal(err)
		}
	}
	addToken(t, ends[0], secret.Random(20))
	await(t, p)

	// A cut line between the two is nobody else's.
	line(t, n.Down(synctest.Between))
	describe(t, ends[0], "over no line")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	if err := p.AwaitSync(ctx); err == nil || description(t, p.Providers[1]) != "" {
		t.Fatal("it was replicated over a cut line")
	}
	cancel()
	line(t, n.Up(synctest.Between))
	await(t, p)
	if got := description(t, p.Providers[1]); got != "over no line" {
		t.Fatalf("after healing it has %q", got)
	}

	// One from here hangs, the other goes on; the connection is still good afterwards.
	for i, link := range []synctest.Link{synctest.ToFirst, synctest.ToSecond} {
		line(t, n.Down(link))
		if c, err := dial(i, 300*time.Millisecond); err == nil {
			c.Close()
			t.Fatalf("server %d can be reached over a cut line", i+1)
		}
		describe(t, ends[1-i], "while the other is away")
		await(t, p) // the servers see one another, and this test goes by their sockets
		line(t, n.Up(link))
		whoIs(t, ends[i], p.Providers[i].BindDN)
	}

	for i, s := range p.Providers {
		s.Kill()
		describe(t, ends[1-i], "while it was dead")
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, p)
		if got := description(t, s); got != "while it was dead" {
			t.Errorf("after its return server %d has %q", i+1, got)
		}
		if ends[i], err = dial(i, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
		if err := ends[i].Bind(s.BindDN, s.Password); err != nil {
			t.Fatal(err)
		}
	}
}

func line(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a killed process has left behind is removed by the next, and what others use is not.
func TestNetworkOfAKilledRun(t *testing.T) {
	used := startNetwork(t)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	gone := "tokendesk-" + pidOf(ended) + "-1-1-1"
	if out, err := exec.Command("ip", "netns", "add", gone).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	left := exec.Command("ip", "netns", "exec", gone, "sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	awaitSpace(t, left.Process.Pid, gone)
	startNetwork(t)
	if err := left.Wait(); err == nil || left.ProcessState.Success() {
		t.Error("what ran in it goes on")
	}
	if _, err := os.Stat(filepath.Join("/run/netns", gone)); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", gone, err)
	}
	line(t, used.Down(synctest.ToFirst))
}

func pidOf(cmd *exec.Cmd) string { return strconv.Itoa(cmd.Process.Pid) }

// awaitSpace waits until a process is in a namespace: ip enters it after it was started.
func awaitSpace(t *testing.T, pid int, space string) {
	t.Helper()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		out, err := exec.Command("ip", "netns", "pids", space).Output()
		if err == nil && strings.Contains(string(out), strconv.Itoa(pid)) {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("it never enters the namespace")
		case <-retry.C:
		}
	}
}

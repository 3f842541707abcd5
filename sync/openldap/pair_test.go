package openldap_test

import (
	"testing"

	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
)

func startPair(t *testing.T) *synctest.Pair {
	t.Helper()
	p, err := synctest.StartPair(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// toPair has a connector speak to both providers, or to what stands before them.
func toPair(p *synctest.Pair, urls ...string) openldap.Config {
	cfg := config(p.Providers[0])
	if cfg.URLs = urls; len(urls) == 0 {
		cfg.URLs = []string{p.Providers[0].URL, p.Providers[1].URL}
	}
	return cfg
}

func TestConformanceOnTwoProviders(t *testing.T) {
	t.Parallel() // it waits for replication and timeouts most of the time
	synctest.Conformance(t, func(t *testing.T) (syncer.Connector, synctest.Service) {
		p := startPair(t)
		first, second := gate(t, p.Providers[0]), gate(t, p.Providers[1])
		return connect(t, toPair(p, first.URL, second.URL)), p.Service(first, second)
	})
}

// flaky disturbs so many of the requests, in the same way every time.
func flaky(t *testing.T, s *synctest.Slapd, seed uint64, rate float64) *synctest.Flaky {
	t.Helper()
	f, err := synctest.NewFlaky(s, seed, rate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestConformanceThroughFlaky(t *testing.T) {
	t.Parallel()
	injected := 0
	synctest.ConformanceThrough(t, func(t *testing.T) (syncer.Connector, synctest.Service) {
		s := start(t)
		f := flaky(t, s, 1, 0.1)
		t.Cleanup(func() { injected += len(f.Injected()) })
		cfg := config(s)
		cfg.URLs = []string{f.URL}
		return connect(t, cfg), s.Service(f)
	})
	if injected == 0 {
		t.Error("nothing was disturbed")
	}
}

// unseen is a connector whose writes nobody between it and the server can read, so that nothing can be made to happen
// just before one.
type unseen struct{ *openldap.Connector }

func (u unseen) Capabilities() syncer.Capabilities {
	c := u.Connector.Capabilities()
	c.CompareAndSet = false
	return c
}

// TLS handshakes that end in the middle, and whole packets that do.
func TestConformanceThroughFlakyTLS(t *testing.T) {
	t.Parallel()
	synctest.ConformanceThrough(t, func(t *testing.T) (syncer.Connector, synctest.Service) {
		s := start(t)
		f := flaky(t, s, 2, 0.02)
		cfg := config(s)
		cfg.URLs, cfg.CAFile = []string{f.TLSURL}, s.CAFile
		return unseen{connect(t, cfg)}, s.Service()
	})
}

func TestConformanceOnTwoProvidersThroughFlaky(t *testing.T) {
	t.Parallel() // it waits for replication and timeouts most of the time
	synctest.ConformanceThrough(t, func(t *testing.T) (syncer.Connector, synctest.Service) {
		p := startPair(t)
		first, second := flaky(t, p.Providers[0], 3, 0.03), flaky(t, p.Providers[1], 4, 0.03)
		return connect(t, toPair(p, first.URL, second.URL)), p.Service(first, second)
	})
}

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/sync/synctest"
)

const firstKey device.Serial = 30000001

const (
	slot   = 2
	digits = 8 // so that hardly any code fits twice
	spare  = 4 // users beyond the keys
)

// stage is a desk, two directory servers apart from it and from each other, keys and users.
type stage struct {
	*world.World
	options
	out     io.Writer
	began   time.Time
	dir     string
	network *synctest.Network
	keys    []*key
	users   []string

	mu       sync.Mutex
	failures []string
	refusals map[string]int // what officers were told, and how often
	logins   []login
	outages  []outage
	parked   map[uint64]bool // changes that were, at the end

	daemonKills, slapdKills, pauses, cuts atomic.Int64
	result                                result
}

// key is one token's key.
type key struct {
	serial device.Serial
	hand   sync.Mutex // whoever has it touches the key

	mu    sync.Mutex
	owner string   // as the desk last said
	codes []string // typed, and tried by nobody yet
}

func (k *key) token() device.TokenID { return device.SlotToken(device.YubiKeyID(k.serial), slot) }

func (k *key) path(verb string) string { return "/v1/tokens/" + string(k.token()) + verb }

// outage is a time in which one of the servers, or the daemon, was not there for somebody.
type outage struct {
	what        string
	server      int  // 1 or 2 if it was one of the servers itself
	replication bool // the servers could not replicate
	daemon      bool // it was the daemon
	from, to    time.Time
}

func newStage(o options, out io.Writer) (s *stage, err error) {
	s = &stage{options: o, out: out, refusals: map[string]int{}, parked: map[uint64]bool{}}
	defer func() {
		if err != nil {
			err = joined(err, s.close())
			s = nil
		}
	}()
	if s.dir, err = os.MkdirTemp("", "tc"); err != nil {
		return s, err
	}
	if s.network, err = synctest.StartNetwork(); err != nil {
		return s, err
	}
	directory := filepath.Join(s.dir, "ldap")
	if err := os.Mkdir(directory, 0o700); err != nil {
		return s, err
	}
	pair, err := synctest.StartPairIn(s.network, directory)
	if err != nil {
		return s, err
	}
	var keys []string
	for i := range o.keys {
		k := &key{serial: firstKey + device.Serial(i)}
		s.keys = append(s.keys, k)
		keys = append(keys, fmt.Sprintf("serial=%s,fw=5.4.3", k.serial))
	}
	s.World, err = world.Start(world.Options{
		Bin: o.bin, Keys: keys, Running: pair,
		Config: fmt.Sprintf("start_tls = true\nca_file = %q\n", pair.Providers[0].CAFile),
	})
	if err != nil {
		pair.Stop()
		return s, err
	}
	s.began = time.Now()
	return s, s.addUsers()
}

// addUsers gives each key's owner-to-be, and some others, an entry.
func (s *stage) addUsers() error {
	s.users = append(s.users, synctest.Users...)
	return s.Slapd.AsAdmin(func(c *ldap.Conn) error {
		for i := len(s.users); i < len(s.keys)+spare; i++ {
			name := fmt.Sprintf("user%02d", i)
			a := ldap.NewAddRequest(synctest.UserDN(name), nil)
			a.Attribute("objectClass", []string{"inetOrgPerson"})
			a.Attribute("cn", []string{name})
			a.Attribute("sn", []string{name})
			a.Attribute("userPassword", []string{synctest.UserPassword(name)})
			if err := c.Add(a); err != nil {
				return err
			}
			s.users = append(s.users, name)
		}
		return nil
	})
}

func (s *stage) close() (err error) {
	if s.World != nil {
		err = s.Stop()
	}
	if s.network != nil {
		err = errors.Join(err, s.network.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// fail notes something that must not be. The run goes on, and fails at its end.
func (s *stage) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, text)
	fmt.Fprintf(s.out, "%s NOT SO: %s\n", time.Now().Format(clock), text)
}

func (s *stage) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%s %s\n", time.Now().Format(clock), fmt.Sprintf(format, args...))
}

const clock = "15:04:05.000"

func (s *stage) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) == 0 {
		return nil
	}
	return fmt.Errorf("%d things are not so: %s", len(s.failures), strings.Join(s.failures[:min(len(s.failures), 10)], "\n"))
}

// dice are random numbers for one who acts, the same for the same seed.
func (s *stage) dice(who uint64) *rand.Rand { return rand.New(rand.NewPCG(s.seed, who)) }

func pick[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

func joined(a, b error) error {
	if b == nil {
		return a
	}
	return errors.Join(a, b)
}

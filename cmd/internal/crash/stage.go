package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/crash/tracer"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

const firstKey device.Serial = 20000001

const (
	keysOf   = 200 // of one world, absent at first
	slot     = 2
	settleIn = 2 // touches settle what a crash leaves
)

// Kinds of calls that are told apart by name.
const (
	kindTPM       = "TPM"
	kindIncrement = "TPM increment" // TPM2_NV_Increment
)

// stage is a world whose daemon runs under the tracer. It is used for one point after the other, each with a key of its
// own or one that the point before has left in order.
type stage struct {
	*world.World
	tracer *tracer.Tracer
	used   int
	key    device.Serial // of this point; 0: take a fresh one
	user   string        // whom the key is for, or to go to
	done   int           // how many of the act's steps were reported as done
	unused int           // codes typed since the last login
	shown  uint64        // how many codes the fob has shown
	said   []string      // what the daemon has said in its last work

	pin     string   // of the vault
	next    string   // the PIN that it is to get
	old     *oldCopy // from before the operation; nil if there was no vault
	outside string   // a directory for what the vault is written to: backups, move files
	tries   int      // points so far
	second  *world.World
	request api.VaultOutcome // what the board that a vault goes to has asked for
	source  string           // the file that a vault is made from
	read    map[string]bool  // backups that were read before
}

func newStage(ctx context.Context, o options, sc Scenario) (s *stage, err error) {
	s = &stage{}
	if s.outside, err = os.MkdirTemp("", "tb"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if s.tracer, err = tracer.Start(); err != nil {
		return s, err
	}
	if sc.PIN {
		s.pin = firstPIN
	}
	var config string
	if sc.Backups {
		config = fmt.Sprintf("\n[backup]\ndir = %q\nkeep = 0\n", s.outside)
	}
	var keys []string
	for i := range keysOf {
		keys = append(keys, absentKey(firstKey+device.Serial(i)))
	}
	s.World, err = world.Start(world.Options{
		Bin: o.bin, Keys: keys, NoCentral: !sc.Central, NoVault: sc.Blank, PIN: s.pin, Config: config,
		Daemon: func(config string) *exec.Cmd {
			cmd := s.tracer.Command(filepath.Join(o.bin, "tokendeskd"), "--config", config)
			cmd.Env = append(cmd.Env, o.environment...)
			return cmd
		},
	})
	if err != nil {
		return s, err
	}
	if sc.Begin != nil {
		if err := sc.Begin(ctx, s); err != nil {
			return s, fmt.Errorf("cannot begin: %w\n%s", err, s.log())
		}
	}
	return s, nil
}

func absentKey(serial device.Serial) string {
	return fmt.Sprintf("serial=%s,fw=5.4.3,present=false", serial)
}

// addBoard gives the stage a second board, without a vault at first, that nobody kills.
func (s *stage) addBoard() (err error) {
	s.second, err = world.Start(world.Options{Bin: s.Bin, NoCentral: true, NoVault: true, Keys: []string{absentKey(firstKey)}})
	return err
}

func (s *stage) close() (err error) {
	for _, w := range []*world.World{s.World, s.second} {
		if w != nil {
			err = errors.Join(err, w.Stop())
		}
	}
	if s.tracer != nil {
		err = errors.Join(err, s.tracer.Close())
	}
	return errors.Join(err, os.RemoveAll(s.outside))
}

// kinds name what the daemon writes to.
func (s *stage) kinds() []tracer.Kind {
	return []tracer.Kind{
		{Name: "log", Prefix: filepath.Join(s.Dir, "tokendeskd.log"), Ignore: true},
		{Name: "vault", Prefix: vaultFile(s.World)},
		{Name: "new vault", Prefix: filepath.Join(s.Dir, ".vault.db")},
		{Name: "file", Prefix: s.Dir},
		{Name: "outside", Prefix: s.outside},
		{Name: kindIncrement, Prefix: s.TPM, At: 6, Bytes: binary.BigEndian.AppendUint32(nil, increment)},
		{Name: kindTPM, Prefix: s.TPM},
		{Name: "key", Prefix: "unix:" + s.EmulatorSocket},
		{Name: "directory", Prefix: "tcp:"},
	}
}

// takeKey inserts a key that was never used.
func (s *stage) takeKey(ctx context.Context) error {
	if s.used == keysOf {
		return errors.New("this world has no more keys")
	}
	s.key = firstKey + device.Serial(s.used)
	s.used++
	return s.Emulator.Insert(ctx, s.key.String())
}

// putAway pulls the key; the next point takes another.
func (s *stage) putAway(ctx context.Context) error {
	key := s.key
	s.key = 0
	return s.Emulator.Remove(ctx, key.String())
}

func (s *stage) token() device.TokenID { return device.SlotToken(device.YubiKeyID(s.key), slot) }

func (s *stage) path(verb string) string { return "/v1/tokens/" + string(s.token()) + verb }

// order has something done with the token that needs no key.
func (s *stage) order(ctx context.Context, action, user string) error {
	o := api.Order{Tokens: []string{string(s.token())}, User: user, Reason: "a test"}
	return s.Client.Post(ctx, "/v1/tokens/actions/"+action, o, new(api.Outcomes))
}

// work has the daemon do something, touches the key whenever it asks, and counts the codes that were wanted. Where a busy
// machine has read no code, the one after it may be spoilt as well, and neither counts.
func (s *stage) work(ctx context.Context, path string, body any) (codes int, err error) {
	var touchErr error
	s.said = nil
	_, err = s.Client.Work(ctx, path, body, func(p api.Progress) {
		s.said = append(s.said, p.Text)
		switch {
		case p.Kind == "touch":
			codes++
			touchErr = errors.Join(touchErr, s.Press(ctx, s.key, p.Slot == 2))
		case strings.Contains(p.Text, "not a code"):
			codes -= 2
		}
	})
	if err = errors.Join(err, touchErr); err != nil {
		err = fmt.Errorf("%w, after %q", err, s.said)
	}
	return codes, err
}

func (s *stage) enroll(ctx context.Context, typed bool) error {
	if err := s.AwaitKeys(ctx, s.key); err != nil { // after a restart
		return err
	}
	e := s.enrollment()
	e.Typed = typed
	_, err := s.work(ctx, "/v1/enroll", e)
	return err
}

func (s *stage) enrollment() api.Enroll {
	return api.Enroll{Device: string(device.YubiKeyID(s.key)), App: fmt.Sprintf("otp%d", slot), User: s.user, Digits: 6, Enter: true}
}

// look returns the token as the desk has it.
func (s *stage) look(ctx context.Context) (t api.Token, found bool, err error) {
	err = s.Client.Get(ctx, s.path(""), nil, &t)
	if known := (*api.Error)(nil); errors.As(err, &known) && known.Code == api.NotFound {
		return t, false, nil
	}
	return t, err == nil, err
}

// emptySlot finds out whether the key's slot holds nothing.
func (s *stage) emptySlot(ctx context.Context) (bool, error) {
	var keys api.Keys
	if err := s.Client.Get(ctx, "/v1/devices", nil, &keys); err != nil {
		return false, err
	}
	for _, k := range keys.Keys {
		if k.ID == string(device.YubiKeyID(s.key)) && len(k.Slots) >= slot {
			return !k.Slots[slot-1].Configured, nil
		}
	}
	return false, fmt.Errorf("the desk does not see key %s", s.key)
}

// drained waits until the outbox is empty.
func (s *stage) drained(ctx context.Context) error {
	for {
		var left api.Changes
		if err := s.Client.Get(ctx, "/v1/outbox", nil, &left); err != nil {
			return err
		}
		if len(left.Changes) == 0 {
			return nil
		}
		for _, c := range left.Changes {
			if c.State == "parked" {
				return fmt.Errorf("%s of %s is parked: %s", c.Kind, c.Token, c.Problem)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the outbox does not drain: %+v", left.Changes)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// log is the end of what the daemon has logged.
func (s *stage) log() string {
	const last = 4 << 10
	b, err := os.ReadFile(filepath.Join(s.Dir, "tokendeskd.log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-last):])
}

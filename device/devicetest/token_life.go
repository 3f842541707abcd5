package devicetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

func whoItIs(b *tokenBench) {
	for _, configured := range []bool{false, true} {
		s, close := b.session()
		id, err := s.Identify(b.Context())
		serial, _ := b.ID.Device().Serial()
		if err != nil || id.ID != b.ID.Device() || id.Serial != serial || id.Firmware != b.Firmware {
			b.Fatalf("it is %+v, not %s with firmware %s, %v", id, b.ID.Device(), b.Firmware, err)
		}
		name := strings.TrimRight(b.row.Name, ":")
		i := slices.IndexFunc(id.Holds, func(h device.Holding) bool { return h.Name == name })
		if i < 0 {
			b.Fatalf("it says nothing of %s: %+v", name, id)
		}
		switch h := id.Holds[i]; {
		case h.Locked:
			if b.Password.IsZero() {
				b.Errorf("%+v, and it has no password", h)
			}
		case h.Configured != configured || b.credential != "" && (h.Used > 0) != configured:
			b.Errorf("%+v, and it is configured: %v", h, configured)
		}
		t, err := s.Token(b.Context(), b.ID)
		if err == nil {
			err = t.Unlock(b.Context(), b.Password)
		}
		if err != nil {
			b.Fatal(err)
		}
		state, err := t.Describe(b.Context())
		if want := (device.State{Serial: serial, Firmware: b.Firmware, Configured: configured}); err != nil || state != want {
			b.Fatalf("the token is %+v, not %+v, %v", state, want, err)
		}
		if e := t.Emission(); (e.Typed() || e == device.Elsewhere) != (b.Touch != nil) || e.Typed() && b.face() != device.Reports {
			b.Errorf("emission %d by face %d, typed: %v", e, b.face(), b.Touch != nil)
		}
		b.program(t, b.config(seedOne))
		close()
	}
}

// By each face a device has those tokens whose rows name its family and that face, if its model has them at all.
func foreignTokens(b *tokenBench) {
	s, close := b.session()
	defer close()
	foreign := map[device.Family]device.ID{device.YubiKey: device.YubiKeyID(87654321), device.Nitrokey: device.NitrokeyID(0xFEDCBA98)}
	foreign[b.row.Family] = b.ID.Device()
	for _, row := range device.Applications {
		name := row.Name
		if strings.HasSuffix(name, ":") {
			name += "somebody"
		}
		id := device.AppToken(foreign[row.Family], name)
		_, err := s.Token(b.Context(), id)
		if may := row.Family == b.row.Family && row.HOTP && slices.Contains(row.Faces, b.face()); err == nil && !may {
			b.Errorf("it lends %s", id)
		} else if err != nil {
			b.expectError(err, device.ErrNoApplication, string(id))
		}
	}
}

func configurations(b *tokenBench) {
	b.use(func(t device.HOTPToken) {
		step := b.row.CounterStep
		for _, digits := range []int{6, 8} {
			for _, start := range []uint64{0, step, 1000 * step, b.row.MaxCounter} {
				c := b.config(seedOne)
				c.Digits, c.StartCounter, c.Enter = digits, start, digits == 6 || start > step // the end of a code without Enter is a silence
				n := 2
				if start == b.row.MaxCounter {
					n = 1
				}
				b.program(t, c)
				b.expect(t, c, start, n, fmt.Sprintf("%d digits from %d", digits, start))
			}
		}
	})
}

// What cannot be is refused before anything is written.
func refusedConfigurations(b *tokenBench) {
	b.use(func(t device.HOTPToken) {
		c := b.config(seedOne)
		b.program(t, c)
		refused := map[string]func(*device.HOTPConfig){
			"no seed":             func(c *device.HOTPConfig) { c.Seed = none },
			"a seed of 21 bytes":  func(c *device.HOTPConfig) { c.Seed = secret.New(make([]byte, device.MaxSeedSize+1)) },
			"7 digits":            func(c *device.HOTPConfig) { c.Digits = 7 },
			"a counter too large": func(c *device.HOTPConfig) { c.StartCounter = b.row.MaxCounter + b.row.CounterStep },
		}
		if b.row.CounterStep > 1 {
			refused["a counter between steps"] = func(c *device.HOTPConfig) { c.StartCounter = b.row.CounterStep + 1 }
		}
		if !b.row.Identifier {
			refused["an identifier"] = func(c *device.HOTPConfig) { c.TokenIdentifier = true }
		}
		if b.row.Access == device.SharedPassword {
			refused["an access code"] = func(c *device.HOTPConfig) { c.NewAccessCode = codeOne }
		}
		for what, change := range refused {
			wrong := b.config(seedTwo)
			change(&wrong)
			if err := t.Program(b.Context(), wrong); err == nil {
				b.Errorf("%s was taken", what)
			}
		}
		b.expect(t, c, 0, 1, "after what was refused")
	})
}

func seedSizes(b *tokenBench) {
	b.use(func(t device.HOTPToken) {
		for _, n := range []int{1, 10, 13, 14, 16, 19, device.MaxSeedSize} {
			c := b.config(secret.New(bytes.Clone(seedTwo.Reveal()[:n])))
			b.program(t, c)
			b.expect(t, c, 0, 1, fmt.Sprintf("a seed of %d bytes", n))
		}
		zero := secret.New(append([]byte{0}, seedTwo.Reveal()[1:]...))
		c := b.config(zero)
		b.program(t, c)
		b.expect(t, c, 0, 1, "a seed that begins with a zero byte")
	})
}

// The counter outlives sessions and power.
func codesGoOn(b *tokenBench) {
	c := b.config(seedOne)
	b.use(func(t device.HOTPToken) { b.program(t, c) })
	for n := range uint64(4) {
		if n%2 == 1 {
			b.remove()
			b.insert()
		}
		b.use(func(t device.HOTPToken) { b.expect(t, c, 2*n, 2, "codes go on") })
	}
}

func replacing(b *tokenBench) {
	b.use(func(t device.HOTPToken) {
		for range 2 {
			for _, seed := range []secret.Secret{seedOne, seedTwo, seedTwo} { // the same seed begins anew as well
				c := b.config(seed)
				b.program(t, c)
				b.expect(t, c, 0, 2, "a new seed")
				b.expectConfigured(t, true)
			}
		}
	})
}

func deleting(b *tokenBench) {
	b.use(func(t device.HOTPToken) {
		for range 2 {
			b.program(t, b.config(seedOne))
			for range 2 { // what is not there cannot be protected either
				if err := t.Delete(b.Context(), b.current()); err != nil {
					b.Fatal(err)
				}
				b.expectConfigured(t, false)
			}
		}
	})
	b.remove()
	b.insert()
	b.use(func(t device.HOTPToken) {
		b.expectConfigured(t, false)
		if t.Emission() == device.Calculated {
			if code, err := t.Code(b.Context()); err == nil {
				b.Errorf("a token that was deleted says %q", code)
			}
		}
		c := b.config(seedTwo)
		b.program(t, c)
		b.expect(t, c, 0, 1, "after it was deleted")
	})
}

// What is done to one token is not done to that beside it.
func neighbour(b *tokenBench) {
	c, theirs := b.config(seedOne), b.config(seedTwo)
	other, close := b.opened(b.beside())
	b.program(other, theirs)
	close()
	b.use(func(t device.HOTPToken) {
		b.expectConfigured(t, false)
		b.program(t, c)
		b.expect(t, c, 0, 1, "beside another token")
	})
	other, close = b.opened(b.beside())
	b.expectConfigured(other, true)
	if err := other.Delete(b.Context(), b.current()); err != nil {
		b.Fatal(err)
	}
	b.expectConfigured(other, false)
	close()
	b.use(func(t device.HOTPToken) { b.expect(t, c, 1, 1, "after the token beside it was deleted") })
}

// mostCredentials is more than any device has room for.
const mostCredentials = 200

// noRoomLeft is about rows that stand for any number of tokens.
func noRoomLeft(b *tokenBench) {
	first := b.config(seedOne)
	b.use(func(t device.HOTPToken) { b.program(t, first) })
	if b.credential == "" {
		s, close := b.session()
		defer close()
		id, err := s.Identify(b.Context())
		for _, h := range id.Holds {
			if h.Capacity != 0 && !strings.HasPrefix(h.Name, "oath") {
				b.Errorf("a token counts what is in it: %+v", h)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		return
	}
	name := func(n int) device.TokenID { return device.AppToken(b.ID.Device(), fmt.Sprintf("%sc%d", b.row.Name, n)) }
	more := func(n int) error {
		t, close := b.opened(name(n))
		defer close()
		return t.Program(b.Context(), b.config(seedTwo))
	}
	n := 1 // how many fit in
	for {
		err := more(n)
		if err != nil {
			b.expectError(err, device.ErrFull, fmt.Sprintf("credential %d", n+1))
			break
		}
		if n++; n > mostCredentials {
			b.Fatal("it is never full")
		}
	}
	s, close := b.session()
	t, err := s.Token(b.Context(), name(n))
	if err == nil {
		err = t.Unlock(b.Context(), b.Password)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.expectConfigured(t, false)
	id, err := s.Identify(b.Context())
	for _, h := range id.Holds {
		if h.Name == strings.TrimRight(b.row.Name, ":") && !h.Locked && (h.Used != n || h.Capacity != 0 && h.Capacity != n) {
			b.Errorf("%d fit in, and it says %+v", n, h)
		}
	}
	if err != nil {
		b.Error(err)
	}
	close()
	b.use(func(t device.HOTPToken) { // what is there can be used, and replaced
		b.expect(t, first, 0, 1, "on a full device")
		again := b.config(seedTwo)
		b.program(t, again)
		b.expect(t, again, 0, 1, "replaced on a full device")
		if err := t.Delete(b.Context(), b.current()); err != nil {
			b.Fatal(err)
		}
	})
	if err := more(n); err != nil {
		b.Errorf("after one was deleted: %v", err)
	}
}

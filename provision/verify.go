package provision

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"tokendesk/device"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

const (
	// verifyWindow is how far touches after programming may have run ahead of the captured ones.
	verifyWindow = 1000
	// maxCaptured ends a capture whose codes do not fit.
	maxCaptured = 6
)

// ErrMismatch means that captured codes are not those of the sealed seed.
var ErrMismatch = errors.New("the codes that the key types do not belong to the seed in the vault")

// ErrCodesWanted means that two codes have to be typed in; Resolve takes them.
var ErrCodesWanted = errors.New("it waits for two codes in a row, typed by the key")

// errOldSeed means that the device still answers with the seed it was to lose.
var errOldSeed = errors.New("the key still types codes of its old seed")

// errBoth means that codes of the new seed prove nothing about the old one, because one of them fits that as well.
var errBoth = errors.New("by chance a code fits the old seed as well: repeat with the next two codes of the key")

// proofCodes is how many codes in a row prove a seed: of 6 digits, two fit a window of 1000 by chance once in a billion.
const proofCodes = 2

// proof checks captured codes against the sealed seed and the one it replaces.
type proof struct {
	seed       secret.Secret
	digits     int
	start      uint64
	old        secret.Secret // zero if there was none
	oldCounter uint64
}

// check looks at the last two codes. It returns the next moving factor once they prove the seed, and neither is one of the
// seed before.
func (p proof) check(codes []string) (next uint64, ok bool, err error) {
	if len(codes) < proofCodes {
		return 0, false, nil
	}
	codes = codes[len(codes)-proofCodes:]
	n, found := hotpscan.Search(p.seed, p.digits, p.start, verifyWindow, codes)
	switch {
	case !found && p.fitsOld(codes):
		return 0, false, errOldSeed
	case !found:
		return 0, false, nil
	}
	if err := confirmCodes(p.seed, p.digits, n, codes); err != nil {
		return 0, false, err
	}
	for i := range codes {
		if p.fitsOld(codes[i : i+1]) {
			return 0, false, errBoth
		}
	}
	return n + proofCodes, true, nil
}

// freshSeed draws a seed of which no code that verifying will ask for fits the seed before. One in 500 would, and whoever has
// the key in hand would be asked for another touch, or for two other codes.
func (p proof) freshSeed() secret.Secret {
	for {
		seed := randomSeed()
		if !p.clashes(seed) {
			return seed
		}
		seed.Wipe()
	}
}

// randomSeed draws a seed that does not begin with a zero, which old Nitrokeys lose (nitrokey-storage-firmware, issue 16).
func randomSeed() secret.Secret {
	for {
		seed := secret.Random(seedSize)
		if seed.Reveal()[0] != 0 {
			return seed
		}
		seed.Wipe()
	}
}

func (p proof) clashes(seed secret.Secret) bool {
	for n := range uint64(maxCaptured) {
		if p.fitsOld([]string{hotpscan.Code(seed, p.digits, p.start+n)}) {
			return true
		}
	}
	return false
}

// fitsOld tells whether the seed before gives codes in a row.
func (p proof) fitsOld(codes []string) bool {
	if p.old.IsZero() {
		return false
	}
	_, found := hotpscan.Search(p.old, p.digits, p.oldCounter, verifyWindow, codes)
	return found
}

// shown is what check has found, up to the next moving factor.
func (p proof) shown(next uint64, generation, before int) vault.Proof {
	shown := vault.Proof{Codes: proofCodes, Generation: generation, Counter: next - proofCodes}
	if !p.old.IsZero() {
		shown.OldGeneration, shown.OldFrom, shown.OldWindow = before, p.oldCounter, verifyWindow
	}
	return shown
}

// confirmCodes has a second, independent implementation agree before a token counts as verified.
func confirmCodes(seed secret.Secret, digits int, counter uint64, codes []string) (err error) {
	secret.Do(func() { err = confirmAll(seed, digits, counter, codes) }) // the library wants the seed as text, and copies it
	return err
}

func confirmAll(seed secret.Secret, digits int, counter uint64, codes []string) error {
	encoded := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed.Reveal())
	options := hotp.ValidateOpts{Digits: otp.Digits(digits), Algorithm: otp.AlgorithmSHA1}
	for i, code := range codes {
		if ok, err := hotp.ValidateCustom(code, counter+uint64(i), encoded, options); err != nil || !ok {
			return fmt.Errorf("two implementations of HOTP disagree about a code: %w", ErrMismatch)
		}
	}
	return nil
}

// Capture asks for touches of an inserted token until accept is content with the codes so far, oldest first. What the key has typed
// after those goes to surplus, one code after another.
func (r *Runner) Capture(ctx context.Context, id device.TokenID, accept func(codes []string) (bool, error), surplus func(code string), tell Tell) error {
	return r.Open(ctx, id, func(t device.HOTPToken, _ bool) error {
		err := r.capture(ctx, t, id, accept, tell)
		if errors.Is(err, device.ErrLocked) {
			if err = r.unlock(ctx, t, id); err == nil {
				err = r.capture(ctx, t, id, accept, tell)
			}
		}
		if err == nil && t.Emission().Typed() {
			drain(ctx, t, surplus)
		}
		return err
	})
}

func (r *Runner) capture(ctx context.Context, t device.HOTPToken, id device.TokenID, accept func([]string) (bool, error), tell Tell) error {
	timeout := r.TouchTimeout
	if timeout == 0 {
		timeout = DefaultTouchTimeout
	}
	touch := "touch the key"
	switch t.Emission() {
	case device.Elsewhere:
		return ErrCodesWanted
	case device.LongTouch:
		touch = "touch the key for three seconds"
	}
	var codes []string
	for range maxCaptured {
		if t.Emission().Typed() {
			tell(Progress{Kind: Touch, Text: touch, Slot: id.Slot(), Codes: len(codes)})
		}
		touchCtx, cancel := context.WithTimeout(ctx, timeout)
		code, err := t.Code(touchCtx)
		cancel()
		if errors.Is(err, device.ErrNotACode) {
			tell(Progress{Kind: Note, Text: "that was not a code of this " + id.Noun() + ": " + touch})
			continue
		}
		if err != nil {
			return err
		}
		codes = append(codes, code)
		if ok, err := accept(codes); err != nil || ok {
			return err
		}
	}
	if len(codes) == 0 {
		return fmt.Errorf("%w: %w", ErrMismatch, device.ErrNotACode)
	}
	return ErrMismatch
}

package pivcard

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/apdu"
)

// Tags of metadata (developers.yubico.com, PIV: GET METADATA).
const (
	metaAlgorithm = 0x01
	metaPolicy    = 0x02 // of PIN, and of touch
	metaOrigin    = 0x03 // 1: generated
	metaPublic    = 0x04
	metaDefault   = 0x05 // 1: as it left the factory
	metaTries     = 0x06 // in all, and left
)

func (c *Card) metadata(ctx context.Context, ref byte) (map[int][]byte, error) {
	answer, err := c.do(ctx, fmt.Sprintf("ask the card about %02x", ref), insMetadata, 0, ref, nil)
	if err != nil {
		return nil, err
	}
	return elements(answer)
}

// Describe implements device.PIV.
func (c *Card) Describe(ctx context.Context) (device.PIVState, error) {
	state := device.PIVState{Serial: c.info.Serial, Firmware: c.info.Firmware}
	if err := c.describeSecrets(ctx, &state); err != nil {
		return device.PIVState{}, err
	}
	strange := false
	for _, slot := range slots() {
		key, unread, err := c.describeSlot(ctx, slot)
		if err != nil {
			return device.PIVState{}, err
		}
		strange = strange || unread
		if key != nil {
			state.Keys = append(state.Keys, *key)
		}
	}
	if strange { // or is it the card that answers no more?
		if _, err := c.do(ctx, "ask for the version", insVersion, 0, 0, nil); err != nil {
			return device.PIVState{}, err
		}
	}
	return state, nil
}

// describeSecrets asks for tries and defaults. An old card tells the PIN's tries only, to who verifies nothing.
func (c *Card) describeSecrets(ctx context.Context, state *device.PIVState) error {
	state.PINRetries, state.PUKRetries = -1, -1
	if !c.hasMetadata() {
		if err := c.forget(ctx); err != nil {
			return err
		}
		_, err := c.do(ctx, "ask for the tries of the PIN", insVerify, 0, refPIN, nil)
		if wrong, ok := errors.AsType[*device.PINError](pinError(err, "PIN")); ok {
			state.PINRetries = wrong.Retries
			return nil
		}
		return err
	}
	state.DefaultsKnown = true
	for _, s := range []struct {
		ref     byte
		initial *bool
		tries   *int
	}{
		{refPIN, &state.DefaultPIN, &state.PINRetries},
		{refPUK, &state.DefaultPUK, &state.PUKRetries},
		{refManagement, &state.DefaultManagementKey, nil},
	} {
		about, err := c.metadata(ctx, s.ref)
		if err != nil {
			return err
		}
		if initial := about[metaDefault]; len(initial) == 1 {
			*s.initial = initial[0] == 1
		} else {
			state.DefaultsKnown = false
		}
		if tries := about[metaTries]; s.tries != nil && len(tries) == 2 {
			*s.tries = int(tries[1])
		}
	}
	return nil
}

// describeSlot tells what is in a slot; nil: nothing. One that cannot be understood (unread) holds something of which no more is
// told: it must not keep a card from being described, and thereby from being reset.
func (c *Card) describeSlot(ctx context.Context, slot device.PIVSlot) (key *device.PIVKey, unread bool, err error) {
	key, err = c.key(ctx, slot)
	if unread = isStrange(err); err != nil && !unread {
		return nil, false, err
	}
	certificate, present, err := c.certificate(ctx, slot)
	if isStrange(err) {
		unread = true
	} else if err != nil {
		return nil, false, err
	}
	if key == nil && !present && !unread {
		return nil, false, nil
	}
	if key == nil {
		key = &device.PIVKey{PIVKeySpec: device.PIVKeySpec{Slot: slot}}
	}
	key.Certificate = certificate
	return key, unread, nil
}

// isStrange tells whether the card has answered, by what is not understood.
func isStrange(err error) bool {
	_, refused := errors.AsType[apdu.Status](err)
	return refused || errors.Is(err, device.ErrCorrupt)
}

// key tells about the key in a slot, and whether it is attested; nil: there is none, or the card does not tell. What is known of
// it is returned with an error, too.
func (c *Card) key(ctx context.Context, slot device.PIVSlot) (*device.PIVKey, error) {
	key, err := c.keyOf(ctx, slot)
	if err != nil || key != nil && !key.Generated || key == nil && c.hasMetadata() {
		return key, err
	}
	attested, err := c.attest(ctx, slot, key)
	switch {
	case err == nil:
		return &attested, nil
	case errors.Is(err, device.ErrAttestation):
		if key == nil && attested.Public != nil {
			key = &device.PIVKey{PIVKeySpec: device.PIVKeySpec{Slot: slot, Algorithm: attested.Algorithm}, Public: attested.Public}
		}
		return key, nil
	case apdu.Is(err, apdu.NotFound, apdu.NoReference, apdu.WrongData, apdu.NoCommand, apdu.Denied, apdu.WrongP1P2, apdu.Conditions):
		return key, nil
	case errors.As(err, new(*device.FirmwareError)):
		return key, nil
	}
	return key, err
}

// keyOf asks for the metadata of a key; nil: there is none, or no metadata.
func (c *Card) keyOf(ctx context.Context, slot device.PIVSlot) (*device.PIVKey, error) {
	if !c.hasMetadata() {
		return nil, nil
	}
	about, err := c.metadata(ctx, byte(slot))
	if apdu.Is(err, apdu.NotFound, apdu.NoReference) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return keyFrom(slot, about)
}

// keyFrom reads the metadata of a key.
func keyFrom(slot device.PIVSlot, about map[int][]byte) (*device.PIVKey, error) {
	key := &device.PIVKey{PIVKeySpec: device.PIVKeySpec{Slot: slot}}
	if b := about[metaAlgorithm]; len(b) == 1 {
		key.Algorithm = algorithms[b[0]]
	}
	if key.Algorithm == "" {
		return nil, fmt.Errorf("%w: slot %s has a key of an algorithm that is not known", device.ErrCorrupt, slot)
	}
	if b := about[metaPolicy]; len(b) == 2 {
		key.PIN, key.Touch = pinPolicies[b[0]], touchPolicies[b[1]]
	}
	if b := about[metaOrigin]; len(b) == 1 {
		key.Generated = b[0] == 1
	}
	if b, ok := about[metaPublic]; ok {
		var err error
		if key.Public, err = parsePublic(key.Algorithm, b); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// public finds the public key in a slot, by what the card tells: not by what it proves.
func (c *Card) public(ctx context.Context, slot device.PIVSlot) (device.PIVKey, error) {
	key, err := c.key(ctx, slot)
	if err != nil {
		return device.PIVKey{}, err
	}
	if key == nil {
		certificate, _, err := c.certificate(ctx, slot)
		if err != nil {
			return device.PIVKey{}, err
		}
		if certificate == nil {
			return device.PIVKey{}, noKey(slot)
		}
		key = &device.PIVKey{PIVKeySpec: device.PIVKeySpec{Slot: slot}, Public: crypto.PublicKey(certificate.PublicKey)}
	}
	key.Algorithm = algorithmOf(key.Public)
	return *key, nil
}

func noKey(slot device.PIVSlot) error {
	return &device.CureError{
		Err:  fmt.Errorf("slot %s has no key, or the firmware does not tell of it", slot),
		Cure: "generate one first",
	}
}

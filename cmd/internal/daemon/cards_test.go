package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// Rule D6: which cards may be used beside which vault.
func TestCards(t *testing.T) {
	for _, c := range []struct {
		level   vault.Level
		config  DevicesConfig
		wanted  bool
		guarded bool
	}{
		{vault.LevelTPM, DevicesConfig{USB: true}, false, false},
		{vault.LevelTPM, DevicesConfig{PCSC: true}, true, true},
		{vault.LevelTPM, DevicesConfig{PCSC: true, EmulatedReaders: []string{"Virtual"}}, true, true},
		{vault.LevelTPM, DevicesConfig{PCSC: true, AllowEmulated: true}, true, false},
		{vault.LevelEmulated, DevicesConfig{PCSC: true}, true, false},
		{vault.LevelPassphrase, DevicesConfig{PCSC: true}, true, false},
	} {
		cards, wanted := c.config.cards(c.level)
		_, guarded := cards.Bus.(*genuineCards)
		if wanted != c.wanted || guarded != c.guarded || (cards.PIV != nil) != wanted {
			t.Errorf("level %s, %+v: wanted %t, guarded %t", c.level, c.config, wanted, guarded)
		}
	}
}

// seenCards is a bus that has seen cards and can open none.
type seenCards []device.CardInfo

func (seenCards) Name() string { return "pcsc" }

func (s seenCards) Watch(_ context.Context, fn func(device.CardEvent)) error {
	for _, c := range s {
		fn(device.CardEvent{Info: c})
	}
	return errSeen
}

func (seenCards) Open(context.Context, string) (device.Card, error) { return nil, device.ErrBusy }

var errSeen = errors.New("that is all")

func TestEmulatedCardsAreShownBesideAHardwareTPM(t *testing.T) {
	bus := &genuineCards{CardBus: seenCards{{Reader: "real"}, {Reader: "virtual", Emulated: true}, {Reader: "mute", Emulated: true, Problem: "mute"}}}
	var seen []device.CardInfo
	if err := bus.Watch(t.Context(), func(e device.CardEvent) { seen = append(seen, e.Info) }); !errors.Is(err, errSeen) || len(seen) != 3 {
		t.Fatalf("%v, %+v", err, seen)
	}
	if seen[0].Problem != "" || seen[1].Problem != notGenuine || seen[1].Cure != allowEmulated || seen[2].Problem != "mute" {
		t.Errorf("%+v", seen)
	}
	for reader, refused := range map[string]bool{"real": false, "virtual": true, "mute": true} {
		_, err := bus.Open(t.Context(), reader)
		if refused != (err != nil && strings.Contains(err.Error(), "EMULATED")) || !refused && !errors.Is(err, device.ErrBusy) {
			t.Errorf("%s: %v", reader, err)
		}
	}
}

// Provisioning knows a key without a card from one whose card cannot be seen.
func TestNoCardAsProvisioningKnowsIt(t *testing.T) {
	none := &keys.NoCardError{ID: "yk-1"}
	if err := error(&noCard{none}); !errors.Is(err, provision.ErrNoCard) || !errors.As(err, new(*keys.NoCardError)) || err.Error() != none.Error() {
		t.Errorf("%v", err)
	}
}

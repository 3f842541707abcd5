package localapi

import (
	"crypto/x509"
	"math/big"
	"slices"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/vault"
)

// The desk speaks of what a card has now: of one record for each slot.
func TestWhatACardHasNow(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	all := []vault.Certificate{
		{ID: 1, Generation: 1, Slot: "9a", DER: []byte("of the card before"), Imported: day(1)},
		{ID: 2, Generation: 2, Slot: "9c", PublicKey: []byte("key"), Request: []byte("request")},
		{ID: 3, Generation: 2, Slot: "9a", DER: []byte("first"), Imported: day(2)},
		{ID: 4, Slot: "9a", DER: []byte("found there"), Imported: day(9)},
		{ID: 5, Generation: 2, Slot: "9a", DER: []byte("renewed"), Imported: day(3)},
		{ID: 6, Generation: 2, Slot: "9a", DER: []byte("never arrived")},
		{ID: 7, Generation: 2, Slot: "82", DER: []byte("nor did this, which is the only one")},
	}
	var ids []uint64
	for _, c := range current(all, 2) {
		ids = append(ids, c.ID)
	}
	if !slices.Equal(ids, []uint64{7, 5, 2}) {
		t.Errorf("now there are %v", ids)
	}
	if got := current(all, 3); len(got) != 0 {
		t.Errorf("a card without keys has %+v", got)
	}
}

func TestARenewedCertificateIsTheOneOnTheCard(t *testing.T) {
	renewed := &x509.Certificate{Raw: []byte("renewed"), SerialNumber: big.NewInt(3)}
	card := []device.PIVKey{{PIVKeySpec: device.PIVKeySpec{Slot: device.PIVAuthentication}, Certificate: renewed}}
	var recorded []api.PIVSlot
	for _, c := range current([]vault.Certificate{
		{ID: 1, Generation: 1, Slot: "9a", DER: []byte("first")}, {ID: 2, Generation: 1, Slot: "9a", DER: renewed.Raw, Imported: time.Now()},
	}, 1) {
		recorded = append(recorded, recordedSlot(c))
	}
	if got := compared(card, recorded); len(got) != 1 || got[0].Problem != "" || got[0].Certificate.SHA256 != printOf(renewed.Raw) {
		t.Errorf("%+v", got)
	}
}

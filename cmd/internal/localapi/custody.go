package localapi

import (
	"context"
	"fmt"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault"
)

type handoversQuery struct {
	TokenPath
	Before uint64 `query:"before" doc:"Only handovers before this one; 0: the newest"`
	Limit  int    `query:"limit" doc:"At most so many" minimum:"1" maximum:"1000" default:"20"`
}

// handovers is a token's chain of custody; also of one that is gone.
func (d *Desk) handovers(_ context.Context, q *handoversQuery) (api.Handovers, error) {
	out := api.Handovers{Handovers: []api.Handover{}}
	id, err := q.id()
	if err != nil {
		return out, err
	}
	err = d.Vault.View(func(tx *vault.Tx) error {
		links, err := tx.HandoversOf(id, q.Before, q.Limit+1)
		if len(links) > q.Limit {
			links = links[:q.Limit]
			out.Next = links[q.Limit-1].ID
		}
		for _, h := range links {
			out.Handovers = append(out.Handovers, handoverOf(h))
		}
		return err
	})
	return out, err
}

func handoverOf(h vault.Handover) api.Handover {
	p := h.Proof
	var revoke []api.Certificate
	for _, r := range h.Revoke {
		revoke = append(revoke, api.Certificate{Token: string(r.Token), Slot: r.Slot, Subject: r.Subject, Issuer: r.Issuer, Serial: r.Serial, SHA256: r.SHA256})
	}
	return api.Handover{
		ID: h.ID, Kind: string(h.Kind), Token: string(h.Token), Serial: uint32(h.Serial), Generation: h.Generation, From: h.From, To: h.To,
		Old: string(h.Old), OldStatus: string(h.OldStatus), OldSerial: uint32(h.OldSerial), Officer: h.Officer.Name, UID: h.Officer.UID,
		Time: h.Time, Reason: h.Reason, Offline: h.Offline, Emulated: h.Emulated, Act: h.Act, Revoke: revoke,
		Proof: api.Proof{
			Codes: p.Codes, Generation: p.Generation, Counter: p.Counter, OldGeneration: p.OldGeneration, OldFrom: p.OldFrom,
			OldWindow: p.OldWindow, Typed: p.Typed, Text: inWords(p),
		},
	}
}

// inWords says what codes have shown at a handover.
func inWords(p vault.Proof) string {
	if p.Codes == 0 {
		return "no code of it was asked for"
	}
	how := "touched"
	if p.Typed {
		how = "typed in"
	}
	text := fmt.Sprintf("%s %s at the handover: of seed generation %d, at %s", number(p.Codes), how, p.Generation, counters(p.Counter, p.Codes))
	if p.OldGeneration > 0 {
		text += fmt.Sprintf("; not of the old one, generation %d, at %d counters from %d on", p.OldGeneration, p.OldWindow, p.OldFrom)
	}
	return text
}

func number(codes int) string {
	switch codes {
	case 1:
		return "one code"
	case 2:
		return "two codes"
	case 3:
		return "three codes"
	}
	return fmt.Sprintf("%d codes", codes)
}

func counters(first uint64, n int) string {
	switch n {
	case 1:
		return fmt.Sprintf("counter %d", first)
	case 2:
		return fmt.Sprintf("the counters %d and %d", first, first+1)
	}
	return fmt.Sprintf("the counters %d to %d", first, first+uint64(n)-1)
}

package localapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"tokendesk/cmd/internal/paper"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// report is one kind: what stands above it, and where its rows come from.
type report struct {
	title, about string
	timed        bool // it can be limited to a span of time
	whole        bool // it takes a role for the whole desk, and not only in a tenant
	columns      []paper.Column
	rows         func(*sheet) error
}

var reports = map[string]report{
	"stock": {
		title: "Stock", about: "Tokens that belong to nobody, compromised ones included",
		columns: []paper.Column{
			{Key: "token", Heading: "Token", Shape: paper.Name}, {Key: "serial", Heading: "Serial number", Shape: paper.Name}, {Key: "type", Heading: "Type"}, {Key: "status", Heading: "Status", Shape: paper.Short},
			{Key: "generation", Heading: "Seed"}, {Key: "firmware", Heading: "Firmware"}, {Key: "batch", Heading: "Batch"}, {Key: "tenant", Heading: "Tenant"},
			{Key: "description", Heading: "Description"}, {Key: "updated", Heading: "Updated", Shape: paper.Short}, {Key: "expires", Heading: "Expires", Shape: paper.Short}, {Key: "note", Heading: "Note"},
		},
		rows: (*sheet).stock,
	},
	"assignments": {
		title: "Assignments", about: "Tokens that belong to somebody", timed: true,
		columns: []paper.Column{
			{Key: "user", Heading: "User"}, {Key: "token", Heading: "Token", Shape: paper.Name}, {Key: "serial", Heading: "Serial number", Shape: paper.Name}, {Key: "type", Heading: "Type"},
			{Key: "status", Heading: "Status", Shape: paper.Short}, {Key: "since", Heading: "Since", Shape: paper.Short}, {Key: "how", Heading: "How"}, {Key: "officer", Heading: "Officer"},
			{Key: "receipt", Heading: "Receipt"}, {Key: "last_used", Heading: "Last used", Shape: paper.Short}, {Key: "expires", Heading: "Expires", Shape: paper.Short}, {Key: "note", Heading: "Note"},
		},
		rows: (*sheet).assignments,
	},
	"exceptions": {
		title: "Exceptions", about: "What somebody has to look at",
		columns: []paper.Column{
			{Key: "exception", Heading: "What"}, {Key: "about", Heading: "About", Shape: paper.Name}, {Key: "user", Heading: "User"}, {Key: "since", Heading: "Since", Shape: paper.Short},
			{Key: "details", Heading: "Details"}, {Key: "next", Heading: "What to do"},
		},
		rows: (*sheet).exceptions,
	},
	"events": {
		title: "Events", about: "Entries of the audit trail", timed: true, whole: true,
		columns: []paper.Column{
			{Key: "entry", Heading: "No.", Shape: paper.Short}, {Key: "time", Heading: "Time", Shape: paper.Short}, {Key: "officer", Heading: "Officer"}, {Key: "uid", Heading: "User ID"},
			{Key: "action", Heading: "Action", Shape: paper.Short}, {Key: "object", Heading: "Object", Shape: paper.Path}, {Key: "outcome", Heading: "Outcome"}, {Key: "reason", Heading: "Reason"},
		},
		rows: (*sheet).events,
	},
}

func (s *sheet) stock() error {
	return s.tokens(func(t vault.Token) error {
		if t.Owner != "" {
			return nil
		}
		firmware := ""
		if t.Firmware != (device.Version{}) {
			firmware = t.Firmware.String()
		}
		return s.Row(string(t.ID), serialOf(t.ID), s.typeOf(t.ID), string(t.Status), strconv.Itoa(t.Generation), firmware, t.Batch, t.Tenant,
			t.Description, s.day(t.Updated), s.day(t.Expires), s.notes(t))
	})
}

func (s *sheet) assignments() error {
	return s.tokens(func(t vault.Token) error {
		if t.Owner == "" {
			return nil
		}
		var since, how, by, receipt string
		h, found, err := lastHandover(s.tx, t.ID)
		if err != nil {
			return err
		}
		if found && strings.EqualFold(h.To, t.Owner) {
			since, how, by, receipt = s.day(h.Time), string(h.Kind), h.Officer.Name, strconv.FormatUint(h.ID, 10)
		} else {
			h = vault.Handover{} // from before the desk has recorded them
		}
		if s.span != (timespan{}) && (h.Time.IsZero() || !s.span.has(h.Time)) {
			return nil
		}
		return s.Row(t.Owner, string(t.ID), serialOf(t.ID), s.typeOf(t.ID), string(t.Status), since, how, by, receipt, s.day(t.LastUsed), s.day(t.Expires), s.notes(t))
	})
}

func (s *sheet) typeOf(id device.TokenID) string {
	return s.desk.naming(provision.TypeOf(id).Code).Name
}

// notes is what a reader of a list has to know of a token.
func (s *sheet) notes(t vault.Token) string {
	var all []string
	if t.Emulated {
		all = append(all, "EMULATED")
	}
	if t.Loss != (vault.Loss{}) {
		all = append(all, fmt.Sprintf("%s on %s", t.Loss.Kind, t.Loss.Time.Local().Format(time.DateOnly)))
		if t.Loss.Owner != "" {
			all = append(all, t.Loss.Owner+" had it last")
		}
	}
	if t.ReseedDue {
		all = append(all, "reseed due")
	}
	if t.Stale {
		all = append(all, "resync before use")
	}
	if t.ReplacedBy != "" {
		all = append(all, "replaced by "+string(t.ReplacedBy))
	}
	if why := s.desk.outOfDate(t); why != "" {
		all = append(all, why)
	}
	return strings.Join(all, "; ")
}

func (s *sheet) events() error {
	return s.tx.Acts(1, func(e audit.Entry) (bool, error) {
		if !s.span.has(e.Time) { // clocks are set back: a later entry may be in the span
			return true, nil
		}
		uid := strconv.FormatInt(e.Officer.UID, 10)
		if e.Officer.UID == audit.DeskUID {
			uid = ""
		}
		return true, s.Row(strconv.FormatUint(e.Seq, 10), s.time(e.Time), e.Officer.Name, uid, e.Action, e.Object, e.Outcome, e.Reason)
	})
}

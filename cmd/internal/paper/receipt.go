package paper

import (
	"bytes"
	"fmt"
	"html/template"
	"strings"
	"time"

	"tokendesk/vault/audit"
)

// CutOff is whether the holder before was known to be cut off when the token was given on.
type CutOff string

// Cut-offs. An Offline statement says Unconfirmed.
const (
	NotDue    CutOff = ""           // nobody had it
	Confirmed CutOff = "confirmed"  // by the central service
	NoCentral CutOff = "no central" // there is no central service
)

// Receipt is a handover as it is told on paper: what is signed in its QR code, and what stands around it.
type Receipt struct {
	Statement
	Desk     Imprint
	Type     string // what the administrator calls the type of token
	Central  string // the token's name in the central service
	Firmware string // empty: not known any more
	CutOff   CutOff
	Revoke   []Certificate // of whoever had the device before
	Head     audit.Head    // of the audit trail, when it was printed
	Printed  time.Time     // in the zone that all times on paper are shown in
}

// Certificate is one that its issuer has to revoke because the key of it has changed hands.
type Certificate struct {
	Serial  string // in hexadecimal
	Subject string
	Issuer  string
}

// maxRevoke is how many certificates a page names.
const maxRevoke = 4

// roomy is how much there may be to say, in bytes, before it is printed smaller to stay on one page. Letter paper is the shorter
// one; names count more, because they are printed large.
const roomy = 950

// fact is a line of the receipt.
type fact struct {
	Name, Text   string
	Wide, Strong bool
}

// Render prints a receipt on one page, and signs it. Every byte of it counts.
func (r Receipt) Render(sign Signer) ([]byte, error) {
	zone := r.Printed.Location()
	r.Statement = r.Statement.plain()
	said, err := r.Statement.Sign(sign)
	if err != nil {
		return nil, err
	}
	qr, err := code(said, "qr", "QR code: the signed statement of this receipt")
	if err != nil {
		return nil, err
	}
	for _, t := range []*string{&r.Desk.Name, &r.Type, &r.Central, &r.Firmware} {
		*t = audit.Plain(*t, maxName)
	}
	r.Desk.ReturnTo = audit.Plain(r.Desk.ReturnTo, maxReason)
	r.Time, r.Printed = r.Time.In(zone), r.Printed.Truncate(time.Second)
	var page bytes.Buffer
	err = templates.ExecuteTemplate(&page, "receipt.html", map[string]any{
		"R": r, "Desk": r.Desk.name(), "Title": r.title(), "Subtitle": r.subtitle(), "Facts": r.facts(),
		"Statement": said, "QR": qr, "Head": headLine(r.Head), "Fingerprint": r.Key.Fingerprint(), "Printed": moment(r.Printed), "Duty": r.duty(), "Dense": r.long() > roomy,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot print a receipt: %w", err)
	}
	return sealed(page.Bytes(), r.Key, sign)
}

// headLine is a signed head as a line of its own, which audit.ParseHead reads in the page as well: whoever keeps a receipt keeps a
// head that was shipped. Its letters mean nothing in HTML.
func headLine(h audit.Head) template.HTML {
	line := h.String()
	if strings.ContainsAny(line, "<>&\"'\n") {
		return ""
	}
	return template.HTML(line)
}

func (r Receipt) title() string {
	switch r.Kind {
	case Issued:
		return "Token issued to " + r.To
	case Reissued:
		return "Token reissued to " + r.To
	case Replaced:
		return "Replacement token for " + r.To
	case Unchanged:
		return "Token passed on to " + r.To
	}
	return "Token assigned to " + r.To
}

func (r Receipt) subtitle() string {
	switch r.Kind {
	case Issued:
		if r.card() {
			return "with keys that were made on it"
		}
		return "with a fresh seed"
	case Reissued:
		return "with a fresh seed, on the device that " + or(r.From, "nobody") + " had before"
	case Replaced:
		return "another device, in the place of " + r.Old
	case Unchanged:
		return "seed unchanged: this device cannot be given another one"
	}
	return "out of stock, as it is"
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (r Receipt) facts() []fact {
	var all []fact
	add := func(f fact) {
		if f.Text != "" {
			all = append(all, f)
		}
	}
	device := r.Type
	if r.Firmware != "" {
		device += ", firmware " + r.Firmware
	}
	seed := fmt.Sprintf("generation %d, sealed in the vault", r.Generation)
	if r.Kind == Unchanged {
		seed = "UNCHANGED: " + seed
	}
	before := or(r.From, "nobody: it was stock")
	if r.From == r.To && r.Old != "" {
		before = r.From + ", on another device"
	}
	add(fact{Name: "Device", Text: device})
	add(fact{Name: "Central name", Text: r.Central})
	add(fact{Name: "Holder before", Text: before})
	if r.card() {
		add(fact{Name: "Keys", Text: fmt.Sprintf("generation %d, made on the card", r.Generation)})
	} else {
		add(fact{Name: "Seed", Text: seed, Strong: r.Kind == Unchanged})
	}
	add(fact{Name: "Officer", Text: fmt.Sprintf("%s (user ID %d)", r.Officer, r.UID)})
	add(fact{Name: "Time", Text: moment(r.Time)})
	add(fact{Name: "In the place of", Text: r.old(), Wide: true})
	add(fact{Name: "Reason", Text: r.Reason, Wide: true})
	add(fact{Name: "Cut-off", Text: r.cutOff(), Wide: true, Strong: r.Offline && r.CutOff != NoCentral})
	add(fact{Name: "Proof", Text: r.ProofWords(), Wide: true})
	add(fact{Name: "To be revoked", Text: r.revoke(), Wide: true, Strong: true})
	return all
}

// revoke names certificates that somebody else can use until their issuers revoke them.
func (r Receipt) revoke() string {
	var all []string
	for i, c := range r.Revoke {
		if i == maxRevoke {
			all = append(all, fmt.Sprintf("and %d more: tokendesk piv revocations", len(r.Revoke)-i))
			break
		}
		all = append(all, fmt.Sprintf("certificate number %s of %s, for %s", audit.Plain(c.Serial, maxName), audit.Plain(c.Issuer, maxName), audit.Plain(c.Subject, maxName)))
	}
	return strings.Join(all, "; ")
}

// ProofWords is in plain words what proves that the holder has what the statement says.
func (s Statement) ProofWords() string {
	if s.card() {
		return "its keys were made on the card, which has attested that"
	}
	return s.Proof.Words(s.Kind)
}

// card tells whether the token is a smart card's application, which has keys and no seed.
func (s Statement) card() bool { return strings.HasSuffix(s.Token, "/piv") }

// long is how much there is to say.
func (r Receipt) long() int {
	n := len(r.duty()) + 6*len(r.To) + len(r.Desk.Name) + 2*len(r.Officer)
	if r.Emulated {
		n += 80 // its mark
	}
	for _, f := range r.facts() {
		n += len(f.Text)
		if !f.Wide {
			n += len(f.Text)
		}
	}
	return n
}

// old says which token this one replaces, and what became of that.
func (r Receipt) old() string {
	if r.Old == "" {
		return ""
	}
	became := map[string]string{"": "", "active": ", now back in stock"}
	text, ok := became[r.OldStatus]
	if !ok {
		text = ", now " + r.OldStatus
	}
	return fmt.Sprintf("%s, serial number %s%s", r.Old, or(r.OldSerial, "unknown"), text)
}

func (r Receipt) cutOff() string {
	who := r.From + " can no longer log in with it"
	if r.Old != "" {
		who = r.From + " can no longer log in with " + r.Old
	}
	switch {
	case r.From == "":
		return ""
	case r.CutOff == NoCentral:
		return "there is no central service to tell"
	case r.Offline:
		return "NOT CONFIRMED by the central service when this was done. The desk tells it of this token's new holder only after it has taken the old access away."
	case r.CutOff == Confirmed:
		return "confirmed by the central service before: " + who
	}
	return "not recorded"
}

// Words is a proof in plain words.
func (p Proof) Words(k Kind) string {
	if p.Codes == 0 {
		return "no code was taken at the handover"
	}
	source := "touched at the handover"
	if p.Typed {
		source = "entered by hand at the handover"
	}
	seed := "the new seed"
	if k == Unchanged || k == Assigned || p.OldGeneration == 0 {
		seed = "its seed"
	}
	verb := "are codes"
	if p.Codes == 1 {
		verb = "is one"
	}
	text := fmt.Sprintf("%s %s %s of %s (generation %d, %s)", these(p.Codes, "code", "codes"), source, verb, seed, p.Generation, counters(p.Counter, p.Codes))
	if p.OldGeneration == 0 {
		return text + "."
	}
	none := "none of them belongs"
	if p.Codes == 1 {
		none = "it does not belong"
	}
	return text + fmt.Sprintf("; %s to the old seed (generation %d), searched over %d counters from %d on.", none, p.OldGeneration, p.OldWindow, p.OldFrom)
}

// counters names so many moving factors in a row.
func counters(from uint64, n int) string {
	switch last := from + uint64(n) - 1; n {
	case 1:
		return fmt.Sprintf("counter %d", from)
	case 2:
		return fmt.Sprintf("counters %d and %d", from, last)
	default:
		return fmt.Sprintf("counters %d to %d", from, last)
	}
}

// duty is what the holder signs.
func (r Receipt) duty() string {
	text := "I have received this token. I keep it with me, lend it to nobody, and report at once if it is lost, stolen or damaged"
	if r.Desk.ReturnTo != "" {
		return text + " (" + strings.TrimRight(r.Desk.ReturnTo, ".") + "). When I leave, I give it back."
	}
	return text + ". When I leave, I give it back."
}

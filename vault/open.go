package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tokendesk/vault/secret"
)

// openSession opens a vault: file, seal, keys, ledger, every record, the TPM's counter. Only then does bbolt see the file.
func openSession(path string, open func() (Sealer, error), pin secret.Secret) (*session, error) {
	return openEven(path, false, open, pin)
}

// openEven opens a vault, even one that was moved away: for nothing but to take that back, or to do it again.
func openEven(path string, moved bool, open func() (Sealer, error), pin secret.Secret) (_ *session, err error) {
	s := &session{path: path, evenMoved: moved}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.file, err = openFile(path); err != nil {
		return nil, err
	}
	if err := sweep(path); err != nil {
		return nil, fmt.Errorf("cannot open the vault: %w", err)
	}
	meta, err := s.readMeta()
	if err != nil {
		return nil, err
	}
	if f, err := formatOf(meta[keyHeader]); err != nil {
		return nil, err
	} else if f < format {
		return reopenMigrated(s, meta[keyHeader], open, pin)
	}
	if err := s.readHeader(meta[keyHeader]); err != nil {
		return nil, err
	}
	if err := s.askFor(pin); err != nil {
		return nil, err
	}
	if err := s.takeSealer(open); err != nil {
		return nil, err
	}
	if err := s.unseal(pin); err != nil {
		return nil, err
	}
	if err := s.unwrap(meta[keyHeader], meta[keyLedger]); err != nil {
		return nil, err
	}
	if err := s.suits(); err != nil {
		return nil, err
	}
	if err := s.verify(); err != nil {
		return nil, err
	}
	if err := s.compare(); err != nil {
		return nil, err
	}
	if err := s.openBolt(); err != nil {
		return nil, corruptUnlessNamed(err)
	}
	if err := s.upgrade(); err != nil {
		return nil, err
	}
	return s, s.nextGeneration()
}

// takeSealer opens what the vault is sealed by. A failed one may be more than nil.
func (s *session) takeSealer(open func() (Sealer, error)) error {
	sealer, err := open()
	if err == nil {
		s.sealer = sealer
	}
	return err
}

// reopenMigrated brings a vault of an older format up to date, and opens it.
func reopenMigrated(s *session, header []byte, open func() (Sealer, error), pin secret.Secret) (_ *session, err error) {
	if err := s.takeSealer(open); err != nil {
		return nil, err
	}
	if err := s.migrate(header, pin); err != nil {
		return nil, err
	}
	if err := s.release(); err != nil {
		return nil, err
	}
	s.file, s.sealer = nil, nil
	return openSession(s.path, open, pin)
}

// layout verifies the file's outermost structure.
func (s *session) layout() (*layout, error) {
	info, err := s.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot open the vault: %w", err)
	}
	l, err := readLayout(s.file, info.Size())
	if err != nil {
		return nil, corrupt("%s is damaged: %w", s.path, err)
	}
	return l, nil
}

// readMeta reads what stands before everything else.
func (s *session) readMeta() (map[string][]byte, error) {
	l, err := s.layout()
	if err != nil {
		return nil, err
	}
	meta := map[string][]byte{}
	err = l.read(bucketMeta, func(_ string, key, val []byte) error {
		meta[string(key)] = bytes.Clone(val)
		return nil
	})
	if err != nil {
		return nil, corrupt("%s is not a vault, or damaged: %w", s.path, err)
	}
	return meta, nil
}

func (s *session) askFor(pin secret.Secret) error {
	if s.header().Moved != "" && !s.evenMoved {
		return movedAway(s.path, s.header().Moved)
	}
	switch {
	case s.header().PIN && pin.IsZero():
		return named(StateLocked, "unlock it: tokendesk vault unlock", "%s is locked", s.path)
	case !s.header().PIN && !pin.IsZero():
		return named(StateWrongPIN, "unlock it without", "%s has no PIN", s.path)
	}
	return nil
}

// unseal has the sealer give out the root secret.
func (s *session) unseal(pin secret.Secret) error {
	if k := s.sealer.Kind(); k != s.header().Sealer {
		return named(StateWrongSealer, "configure the sealer that it was made with", "%s is sealed by %s, not by %s", s.path, s.header().Sealer, k)
	}
	var err error
	if s.pin, err = s.sealer.Key(pin, s.header().Seals[0]); err != nil {
		return err
	}
	for _, blob := range s.header().Seals {
		if s.root, err = s.sealer.Unseal(blob, s.pin); !errors.Is(err, ErrStale) {
			return err
		}
	}
	return named(StateRollback, cureRollback, "%s was sealed before the last rotation or change of the PIN: %w", s.path, err)
}

// unwrap obtains the keys, and reads with them what all else is held against.
func (s *session) unwrap(header, ledger []byte) (err error) {
	if s.keys, s.auth, err = s.header().unwrap(s.root); err != nil {
		return err
	}
	if err := authenticate(header, s.root); err != nil {
		return err
	}
	if s.ledger, err = decodeLedger(s.keys, ledger); err != nil {
		return corrupt("%s: its ledger: %w", s.path, err)
	}
	if s.ledger.Header != sha256.Sum256(header) {
		return corrupt("%s: its header is from another time than its ledger", s.path)
	}
	return nil
}

// suits checks that the sealer protects as well as the one that the vault was made with.
func (s *session) suits() error {
	if l := s.sealer.Level(); l != s.header().Level {
		return named(StateWrongSealer, "open it where it was made", "%s was sealed at level %s, this sealer gives level %s", s.path, s.header().Level, l)
	}
	if _, ok := s.sealer.(Anchor); !ok && s.header().Anchor != nil {
		return named(StateWrongSealer, "open it with the TPM that it was made with", "%s needs a TPM's counter", s.path)
	}
	return nil
}

// verify walks the whole file: its structure, that every record authenticates and every secret opens, and that they are
// those of the ledger, no older one and none too many or too few.
func (s *session) verify() error {
	l, err := s.layout()
	if err != nil {
		return err
	}
	if err := l.checkNames(); err != nil {
		return corrupt("%s: %w", s.path, err)
	}
	var mu sync.Mutex
	var scans []*scan
	err = l.verify(func() entry {
		sc := &scan{coder: coder{keyring: s.keys}, summer: s.keys.summer()}
		mu.Lock()
		defer mu.Unlock()
		scans = append(scans, sc)
		return sc.entry
	})
	if err != nil {
		var state *StateError
		if errors.As(err, &state) {
			return err
		}
		return corrupt("%s is damaged or was changed behind the vault's back: %w", s.path, err)
	}
	var total sum
	var entries uint64
	for _, sc := range scans {
		total.add(sc.sum)
		entries += sc.entries
	}
	if total != s.ledger.Sum || entries != s.ledger.Entries {
		return corrupt("%s holds entries that are not its latest ones: some were put back to an older state, or taken out", s.path)
	}
	return nil
}

// scan is what one goroutine of verify has seen.
type scan struct {
	coder   coder
	summer  *summer
	sum     sum
	entries uint64
	bucket  string // the last one
	secret  bool   // whether it holds secrets
}

func (s *scan) entry(bucket string, key, val []byte) (err error) {
	if bucket != s.bucket {
		s.bucket, s.secret = bucket, secretBuckets[bucket]
	}
	switch {
	case bucket == bucketMeta:
		if k := string(key); k != keyHeader && k != keyLedger {
			return fmt.Errorf("there is an unknown entry %q in %s", key, bucket)
		}
		return nil
	case bucket == bucketIndex:
		if len(val) != 0 {
			return fmt.Errorf("the entry %q in %s has a value", key, bucket)
		}
	case s.secret:
		err = s.coder.checkSecret(bucket, key, val)
	default:
		_, err = s.coder.decodeRecord(bucket, key, val)
	}
	if err != nil {
		return fmt.Errorf("the entry %q in %s: %w", key, bucket, err)
	}
	s.sum.add(s.summer.term(bucket, key, val))
	s.entries++
	return nil
}

// checkNames checks that the buckets are those of a vault.
func (l *layout) checkNames() error {
	found := map[string]bool{}
	for _, b := range l.buckets {
		if !slices.Contains(buckets, b.name) {
			return fmt.Errorf("there is an unknown bucket %q", b.name)
		}
		found[b.name] = true
	}
	for _, name := range buckets {
		if !found[name] && !lateBuckets[name] {
			return fmt.Errorf("it is not a vault: it has no %s", name)
		}
	}
	return nil
}

package vault

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// SeedEntry is a seed, and what a search for its codes has to know of its token.
type SeedEntry struct {
	Token         device.TokenID
	Tenant, Owner string
	Digits        int
	Generation    int    // of the seed
	Current       bool   // it is the generation that Counter is of, and not one of unfinished work
	Counter       uint64 // the next moving factor expected; for a fresh seed of a token that has another one already, 0
	Seed          []byte // lent until the call returns
}

const (
	chunkSeeds = 256 // that are copied out of the file at once
	doSeeds    = 32  // that are used in one secret.Do: the collector waits for it
	seedRoom   = 256 // bytes for a seed; longer ones get more
	seedSuffix = 5   // bytes of a seed's key behind the token's name: see seedKey
)

// EachSeed calls fn for every seed in the vault, out of as many goroutines as workers, which fn gets as 0 to workers-1, and in no
// order. An error of fn ends it. All of a worker's seeds go through the same place in locked memory, and nothing of them stays
// there. fn runs inside secret.Do, which see; it must not use the vault.
//
// Changes go on meanwhile, and each token is seen as it is when its turn comes. Locking the vault ends it.
func (v *Vault) EachSeed(ctx context.Context, workers int, fn func(worker int, e SeedEntry) error) error {
	defer forgetSoon()
	if err := v.anchored(); err != nil {
		return err
	}
	s, leave, err := v.enter()
	if err != nil {
		return err
	}
	defer leave() // the keys are there until then
	g, going := errgroup.WithContext(ctx)
	full, free := make(chan *seedChunk), make(chan *seedChunk, workers+1)
	for range cap(free) {
		free <- &seedChunk{}
	}
	g.Go(func() error {
		defer close(full)
		return s.copySeeds(going, free, full)
	})
	for i := range workers {
		g.Go(func() error {
			w := &seedWorker{s: s, coder: coder{keyring: s.keys}}
			defer func() { w.room.Wipe() }()
			for c := range full {
				if err := w.use(c, func(e SeedEntry) error { return fn(i, e) }); err != nil {
					return err
				}
				free <- c // has room for all there are
			}
			return nil
		})
	}
	return cmp.Or(g.Wait(), ctx.Err()) // nobody may have noticed an end that came late
}

// seedChunk is a part of the vault as it is stored: sealed.
type seedChunk struct {
	buf   []byte
	seeds []sealedSeed
	last  []byte // the last key
}

type sealedSeed struct{ key, sealed, token []byte } // token is the record

func (c *seedChunk) keep(b []byte) []byte {
	c.buf = append(c.buf, b...)
	return c.buf[len(c.buf)-len(b) : len(c.buf) : len(c.buf)]
}

// copySeeds fills chunks, each in a transaction of its own: one that lasts as long as the search would keep the file from growing.
func (s *session) copySeeds(ctx context.Context, free <-chan *seedChunk, full chan<- *seedChunk) error {
	var after []byte
	for {
		var c *seedChunk
		select {
		case c = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.wanted(); err != nil {
			return err
		}
		tx, err := s.beginView()
		if err != nil {
			return err
		}
		err = c.fill(tx, after)
		tx.rollback()
		if err != nil || len(c.seeds) == 0 {
			return err
		}
		more := len(c.seeds) == chunkSeeds
		after = append(after[:0], c.last...)
		select {
		case full <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return nil
		}
	}
}

// fill copies the seeds after a key, with their tokens' records: both buckets are in the order of names.
func (c *seedChunk) fill(tx *Tx, after []byte) error {
	c.buf, c.seeds, c.last = c.buf[:0], c.seeds[:0], c.last[:0]
	return tx.s.guard(func() error {
		seeds, tokens := tx.bolt.Bucket([]byte(bucketSeeds)).Cursor(), tokenCursor{Cursor: tx.bolt.Bucket([]byte(bucketTokens)).Cursor()}
		k, v := seeds.Seek(append(bytes.Clone(after), 0)) // the least key greater than after
		for ; k != nil && len(c.seeds) < chunkSeeds; k, v = seeds.Next() {
			token := tokens.find(k[:max(0, len(k)-seedSuffix)])
			c.seeds = append(c.seeds, sealedSeed{c.keep(k), c.keep(v), c.keep(token)})
			c.last = append(c.last[:0], k...)
		}
		return nil
	})
}

// tokenCursor finds tokens whose names ascend.
type tokenCursor struct {
	*bbolt.Cursor
	k, v []byte
}

func (c *tokenCursor) find(id []byte) []byte {
	if c.k == nil {
		c.k, c.v = c.Seek(id)
	}
	for c.k != nil && bytes.Compare(c.k, id) < 0 {
		c.k, c.v = c.Next()
	}
	if bytes.Equal(c.k, id) {
		return c.v
	}
	return nil
}

// seedWorker opens seeds. It is used by one goroutine.
type seedWorker struct {
	s       *session
	coder   coder
	room    secret.Secret // for one seed
	entries [doSeeds]SeedEntry
}

func (w *seedWorker) use(c *seedChunk, fn func(SeedEntry) error) error {
	for part := range slices.Chunk(c.seeds, doSeeds) {
		need := seedRoom
		for i, sealed := range part {
			e, err := w.entry(sealed)
			if err != nil {
				return corrupt("%s: the entry %q in %s was changed behind the vault's back: %w", w.s.path, sealed.key, bucketSeeds, err)
			}
			w.entries[i], need = e, max(need, len(sealed.sealed))
		}
		if w.room.Len() < need {
			w.room.Wipe()
			w.room, _ = secret.Make(need, func([]byte) error { return nil })
		}
		if err := w.s.wanted(); err != nil {
			return err
		}
		var err error
		secret.Do(func() { err = w.open(part, fn) })
		if err != nil {
			return err
		}
	}
	return nil
}

// open calls fn with seeds, one after another in the same place.
func (w *seedWorker) open(part []sealedSeed, fn func(SeedEntry) error) error {
	room := w.room.Reveal()
	defer clear(room)
	for i, sealed := range part {
		seed, err := w.coder.openSecret(room[:0], bucketSeeds, sealed.key, sealed.sealed)
		if err != nil {
			return corrupt("%s: the entry %q in %s was changed behind the vault's back: %w", w.s.path, sealed.key, bucketSeeds, err)
		}
		w.entries[i].Seed = seed
		err = fn(w.entries[i])
		w.entries[i].Seed = nil
		if err != nil {
			return err
		}
	}
	return nil
}

// entry authenticates a token's record, and reads of it what a search needs.
func (w *seedWorker) entry(sealed sealedSeed) (e SeedEntry, err error) {
	if len(sealed.key) < seedSuffix || len(sealed.token) == 0 {
		return e, errors.New("there is no such token")
	}
	id, generation := sealed.key[:len(sealed.key)-seedSuffix], sealed.key[len(sealed.key)-4:]
	e.Token, e.Generation = device.TokenID(id), int(binary.BigEndian.Uint32(generation)) // the key authenticates with the seed
	body, err := w.coder.decodeRecord(bucketTokens, id, sealed.token)
	if err != nil {
		return e, err
	}
	t, err := readSearched(body)
	if err != nil {
		return e, err
	}
	e.Owner, e.Tenant, e.Digits = t.Owner, t.Tenant, t.Digits
	if e.Current = e.Generation == t.Generation; e.Current || t.Generation == 0 {
		e.Counter = t.Counter
	}
	return e, nil
}

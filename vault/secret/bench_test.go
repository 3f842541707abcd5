package secret_test

import (
	"crypto/rand"
	"testing"

	"tokendesk/vault/secret"
)

// A seed that is made and wiped costs less than 500 ns; what crypto/rand takes is shown beside it.
func BenchmarkRandom(b *testing.B) {
	b.Run("secret", func(b *testing.B) {
		for b.Loop() {
			secret.Random(20).Wipe()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				secret.Random(20).Wipe()
			}
		})
	})
	b.Run("crypto/rand", func(b *testing.B) {
		buf := make([]byte, 20)
		for b.Loop() {
			rand.Read(buf)
		}
	})
}

// Secrets that live at the same time, as in bulk inserts.
func BenchmarkBulk(b *testing.B) {
	live := make([]secret.Secret, 50000)
	for b.Loop() {
		for i := range live {
			live[i] = secret.Random(20)
		}
		for _, s := range live {
			s.Wipe()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(live)), "ns/secret")
}

// A long secret has a mapping of its own.
func BenchmarkLong(b *testing.B) {
	for b.Loop() {
		secret.Random(5000).Wipe()
	}
}

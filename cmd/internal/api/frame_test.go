package api_test

import (
	"bytes"
	"testing"

	"tokendesk/cmd/internal/api"
)

// FuzzReadAnswer gives the reader of an answer that is a secret bodies of any kind: what it takes is what PutAnswer writes.
func FuzzReadAnswer(f *testing.F) {
	good := make([]byte, api.AnswerSize)
	if err := api.PutAnswer(good, []byte("39571846")); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:api.FrameSize])
	f.Add(good[1:])
	f.Add(append([]byte{0, 1, 'a'}, good[3:]...))
	f.Add(append(make([]byte, api.FrameSize), bytes.Repeat([]byte{0xff}, api.FrameSize)...))
	f.Fuzz(func(t *testing.T, body []byte) {
		secret, err := api.ReadAnswer(bytes.NewReader(body), make([]byte, api.AnswerSize))
		if err != nil {
			return
		}
		same := make([]byte, api.AnswerSize)
		if err := api.PutAnswer(same, secret); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(same, body[:api.AnswerSize]) {
			t.Errorf("a body that says more than its secret was taken")
		}
	})
}

package localapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http/httptest"
	"testing"

	"tokendesk/cmd/internal/api"
)

// FuzzReadSecrets gives the reader of secrets bodies of any kind. What it takes is what a frame says; what it refuses, it
// refuses as the caller's fault.
func FuzzReadSecrets(f *testing.F) {
	good := make([]byte, api.FrameSize)
	if err := api.PutFrame(good, []byte("1234"), []byte("AGE-SECRET-KEY-1")); err != nil {
		f.Fatal(err)
	}
	f.Add(api.SecretType, "100-continue", good)
	f.Add(api.SecretType, "100-continue", good[:1000])
	f.Add(api.SecretType, "", good)
	f.Add("application/json", "", []byte("{}"))
	f.Add("text/plain; charset", "100-continue", []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, kind, expect string, body []byte) {
		r := httptest.NewRequest("POST", "/v1/vault/init", bytes.NewReader(body))
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Expect", expect)
		secrets, err := readSecrets(r, 2)
		defer func() {
			for _, s := range secrets {
				s.Wipe()
			}
		}()
		if err != nil {
			if known := (*api.Error)(nil); !errors.As(err, &known) || known.Code != api.Invalid {
				t.Errorf("%v", err)
			}
			return
		}
		left := 0
		if secrets[0].Len()+secrets[1].Len() > 0 {
			left = api.FrameSize
			if n := int(binary.BigEndian.Uint16(body)); n != secrets[0].Len() || !bytes.Equal(body[2:2+n], secrets[0].Reveal()) {
				t.Errorf("the first secret is not the frame's")
			}
		}
		if rest := make([]byte, len(body)+1); left > 0 {
			if n, _ := r.Body.Read(rest); n > len(body)-left {
				t.Errorf("%d bytes are left after a frame, of %d", n, len(body)-left)
			}
		}
	})
}

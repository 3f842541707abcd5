package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

// held is for how long a daemon that is busy may leave a request with secrets waiting before it asks for them.
const held = time.Hour

// PostSecret sends secrets, and in behind them, to path and reads the answer into out. A nil in sends an empty object.
//
// The secrets leave the process only when the daemon asks for them, having accepted the request without. On their way they
// are copied within locked memory only, which is wiped once they are sent.
func (c *Client) PostSecret(ctx context.Context, path string, in, out any, secrets ...secret.Secret) error {
	if in == nil {
		in = struct{}{}
	}
	rest, err := json.Marshal(in)
	if err != nil {
		return unbuilt(err)
	}
	frame, err := secret.Make(api.FrameSize, func(b []byte) error {
		var plain [][]byte
		for _, s := range secrets {
			plain = append(plain, s.Reveal())
		}
		return api.PutFrame(b, plain...)
	})
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	body := &secretBody{frame: frame, left: io.MultiReader(bytes.NewReader(frame.Reveal()), bytes.NewReader(rest)), closed: make(chan struct{})}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address+path, body)
	if err != nil {
		body.Close()
		return unbuilt(err)
	}
	request.ContentLength = int64(api.FrameSize + len(rest))
	request.Header.Set("Content-Type", api.SecretType)
	request.Header.Set("Expect", "100-continue")
	answer, err := c.send(request, &http.Transport{ExpectContinueTimeout: held, DialContext: c.dialSecret})
	<-body.closed // the request may be answered while it is still being sent
	if err != nil {
		return err
	}
	return c.read(ctx, answer, out)
}

// secretBody is the body of a request with secrets. It is read once, and wiped when it is closed, which every transport does.
type secretBody struct {
	frame  secret.Secret
	left   io.Reader
	closed chan struct{}

	mu   sync.Mutex
	once sync.Once
}

func (b *secretBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return 0, net.ErrClosed // others may have the memory now
	default:
		return b.left.Read(p)
	}
}

func (b *secretBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.once.Do(func() {
		b.frame.Wipe()
		close(b.closed)
	})
	return nil
}

func (c *Client) dialSecret(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return secretConn{conn}, nil
}

// secretConn copies what net/http sends as a body within locked memory, and not through a buffer of its own.
type secretConn struct{ net.Conn }

// ReadFrom implements io.ReaderFrom, by which net/http sends a body.
func (c secretConn) ReadFrom(r io.Reader) (n int64, err error) {
	buffer, err := secret.Make(api.FrameSize, func([]byte) error { return nil })
	if err != nil {
		return 0, err
	}
	defer buffer.Wipe()
	for {
		k, readErr := r.Read(buffer.Reveal())
		if k > 0 { // to write nothing fails as well, once the daemon has answered and hung up
			if _, err := c.Write(buffer.Reveal()[:k]); err != nil {
				return n, err
			}
		}
		n += int64(k)
		if readErr == io.EOF {
			return n, nil
		}
		if readErr != nil {
			return n, readErr
		}
	}
}

// TakeSecret posts to path, whose answer is one secret. It goes from the socket into locked memory.
func (c *Client) TakeSecret(ctx context.Context, path string) (secret.Secret, error) {
	body, err := c.do(ctx, http.MethodPost, path, nil)
	if err != nil {
		return secret.Secret{}, err
	}
	defer body.Close()
	var taken secret.Secret
	answer, err := secret.Make(api.AnswerSize, func(b []byte) error {
		plain, err := api.ReadAnswer(body, b)
		if err != nil {
			return err
		}
		taken, err = secret.Make(len(plain), func(b []byte) error { copy(b, plain); return nil })
		return err
	})
	answer.Wipe()
	if err != nil {
		taken.Wipe()
		return secret.Secret{}, api.Errorf(api.Unreachable, "what tokendeskd was to tell did not arrive whole, and it is told once: look at what is so before going on")
	}
	return taken, nil
}

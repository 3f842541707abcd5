package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

// bodyPatience is how long a body may take to arrive.
const bodyPatience = 10 * time.Second

// secretly registers an operation whose requests carry secrets in a frame, and then JSON. The router never sees such a body:
// it would keep it in buffers that outlive the request. Where no secret is to be given, plain JSON will do.
func secretly[In, Out any](a huma.API, d *Desk, who access, path, id, summary string, names []string, fn func(context.Context, In, []secret.Secret) (Out, error)) {
	framed(a, d, who, operation(http.MethodPost, path, id, summary), names, func(huma.Context) *nothing { return nil },
		func(ctx context.Context, _ *nothing, in In, secrets []secret.Secret) (Out, error) {
			return fn(ctx, in, secrets)
		})
}

// framed is secretly for an operation that is about what at finds in the path.
func framed[At, In, Out any](a huma.API, d *Desk, who access, op huma.Operation, names []string, at func(huma.Context) At, fn func(context.Context, At, In, []secret.Secret) (Out, error)) {
	op = d.guarded(op, who)
	registry := a.OpenAPI().Components.Schemas
	schema := registry.Schema(reflect.TypeFor[In](), true, op.OperationID)
	media := &huma.MediaType{Schema: schema}
	op.RequestBody = &huma.RequestBody{
		Description: "As " + api.SecretType + ", a frame of 16384 bytes stands before the JSON that is described here: each secret after its length (2 bytes, big endian), " +
			"then zeroes. It is sent with Expect: 100-continue. Its secrets: " + strings.Join(names, ", ") + ". As JSON, none is given.",
		Content: map[string]*huma.MediaType{api.SecretType: media, "application/json": media},
	}
	op.Responses = map[string]*huma.Response{
		"200":     described("OK", registry.Schema(reflect.TypeFor[Out](), true, "")),
		"default": described("Error", registry.Schema(reflect.TypeFor[api.Error](), true, "Error")),
	}
	a.OpenAPI().AddOperation(&op)
	a.Adapter().Handle(&op, op.Middlewares.Handler(func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		about := at(hc)
		var out Out
		err := d.within(r.Context(), who, about)
		if err == nil {
			out, err = answerSecretly(w, r, len(names), func(in io.Reader) (In, error) { return parse[In](registry, schema, in) },
				func(ctx context.Context, in In, secrets []secret.Secret) (Out, error) {
					return fn(ctx, about, in, secrets)
				})
		}
		if failed := d.conclude(r.Context(), op, about, err); failed != nil {
			writeError(w, failed)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(out)
	}))
}

func described(what string, schema *huma.Schema) *huma.Response {
	return &huma.Response{Description: what, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
}

func answerSecretly[In, Out any](w http.ResponseWriter, r *http.Request, n int, parse func(io.Reader) (In, error),
	fn func(context.Context, In, []secret.Secret) (Out, error)) (out Out, err error) {
	if r.URL.RawQuery != "" {
		return out, api.Errorf(api.Invalid, "the request is not valid: the query has a parameter that this operation does not know")
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(bodyPatience)); err != nil {
		return out, err
	}
	secrets, err := readSecrets(r, n)
	defer func() {
		for _, s := range secrets {
			s.Wipe()
		}
	}()
	if err != nil {
		return out, err
	}
	in, err := parse(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return out, err
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return out, err
	}
	return fn(r.Context(), in, secrets)
}

// readSecrets reads the n secrets before a body's JSON; all are empty if it is nothing but JSON.
func readSecrets(r *http.Request, n int) ([]secret.Secret, error) {
	secrets := make([]secret.Secret, n)
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Type") == "", kind == "application/json" && err == nil:
		return secrets, nil
	case kind != api.SecretType || err != nil:
		return secrets, api.Errorf(api.Invalid, "the request is not valid: the content type is neither %s nor application/json", api.SecretType)
	case !strings.EqualFold(r.Header.Get("Expect"), "100-continue"):
		// Without it, the beginning of the body has arrived with the headers, in the server's own buffer.
		return secrets, api.Errorf(api.Invalid, "the request is not valid: secrets are sent with Expect: 100-continue")
	}
	frame, err := secret.Make(api.FrameSize, func(b []byte) error {
		// Reads of as much as the server's buffer holds, or more, do not go through it.
		parts, err := api.ReadFrame(r.Body, b, n)
		if err != nil {
			return api.Errorf(api.Invalid, "the request is not valid: %v", err)
		}
		for i, p := range parts {
			if secrets[i], err = secret.Make(len(p), func(b []byte) error { copy(b, p); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	frame.Wipe()
	return secrets, err
}

// parse reads JSON and checks it against its schema. Nothing at all is an empty object.
func parse[In any](registry huma.Registry, schema *huma.Schema, r io.Reader) (in In, err error) {
	body, err := io.ReadAll(r)
	switch {
	case err != nil:
		return in, badRequest(http.StatusBadRequest)
	case len(body) > maxBody:
		return in, badRequest(http.StatusRequestEntityTooLarge)
	case len(bytes.TrimSpace(body)) == 0:
		body = []byte("{}")
	}
	var loose any
	if json.Unmarshal(body, &loose) != nil {
		return in, badRequest(http.StatusUnprocessableEntity, errors.New("no JSON"))
	}
	var found huma.ValidateResult
	at := huma.NewPathBuffer(make([]byte, 0, 64), 0)
	at.Push("body")
	huma.Validate(registry, schema, at, huma.ModeWriteToServer, loose, &found)
	if len(found.Errors) > 0 {
		return in, badRequest(http.StatusUnprocessableEntity, found.Errors...)
	}
	if json.Unmarshal(body, &in) != nil {
		return in, badRequest(http.StatusUnprocessableEntity, errors.New("no JSON"))
	}
	return in, nil
}

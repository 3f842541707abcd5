package localapi_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// document is what the tests need of OpenAPI 3.1.
type document struct {
	OpenAPI    string                        `json:"openapi"`
	Paths      map[string]map[string]*action `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

type action struct {
	OperationID string `json:"operationId"`
	Summary     string `json:"summary"`
	Parameters  []struct {
		Name   string  `json:"name"`
		In     string  `json:"in"`
		Schema *schema `json:"schema"`
	} `json:"parameters"`
	RequestBody *content            `json:"requestBody"`
	Responses   map[string]*content `json:"responses"`
	Roles       []string            `json:"x-roles"`
	Tenants     bool                `json:"x-tenants"`
}

type content struct {
	Description string `json:"description"`
	Content     map[string]struct {
		Schema *schema `json:"schema"`
	} `json:"content"`
}

type schema struct {
	Ref        string             `json:"$ref"`
	Type       any                `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Items      *schema            `json:"items"`
	Enum       []any              `json:"enum"`
	Examples   []any              `json:"examples"`
	Minimum    float64            `json:"minimum"`
}

func (d *desk) document() (doc document) {
	d.Helper()
	a := d.ask(http.MethodGet, "/openapi.json", nil, nil)
	if err := json.Unmarshal(a.body, &doc); err != nil || a.status != http.StatusOK {
		d.Fatalf("status %d, %v: %s", a.status, err, a.body)
	}
	return doc
}

func (doc document) resolve(s *schema) *schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return doc.Components.Schemas[name]
	}
	return s
}

// example is a value that obeys a schema.
func (doc document) example(s *schema) any {
	s = doc.resolve(s)
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Properties != nil:
		all := map[string]any{}
		for name, property := range s.Properties {
			all[name] = doc.example(property)
		}
		return all
	}
	switch s.Type {
	case "integer", "number":
		return s.Minimum
	case "boolean":
		return false
	case "string":
		return "a"
	}
	return []any{} // an array, perhaps of the type "array or null"
}

// The operations that this version promises, with what they answer.
var promised = map[string]string{
	"GET /v1/status": "application/json", "GET /v1/doctor": "application/json", "GET /v1/devices": "application/json",
	"GET /v1/devices/watch": "application/x-ndjson", "GET /v1/tokens": "application/json",
	"GET /v1/tokens/{device}/{application}": "application/json", "GET /v1/outbox": "application/json",
	"POST /v1/outbox/{seq}/retry": "application/json", "POST /v1/enroll": "application/x-ndjson",
	"GET /v1/vault": "application/json", "GET /v1/vault/backups": "application/json", "POST /v1/vault/init": "application/json",
	"POST /v1/vault/unlock": "application/json", "POST /v1/vault/lock": "application/json", "POST /v1/vault/change-pin": "application/json",
	"POST /v1/vault/rotate": "application/json", "POST /v1/vault/check": "application/json", "POST /v1/vault/backup": "application/json",
	"POST /v1/vault/restore": "application/json", "POST /v1/vault/move": "application/json",
	"GET /v1/audit": "application/json", "GET /v1/audit/export": "application/jsonl",
	"POST /v1/tokens/actions/{action}":                "application/json",
	"POST /v1/tokens/actions/{action}/preview":        "application/json",
	"GET /v1/tokens/{device}/{application}/history":   "application/json",
	"GET /v1/tokens/{device}/{application}/receipt":   "application/json",
	"GET /v1/tokens/{device}/{application}/label":     "application/json",
	"GET /v1/handovers/{id}/receipt":                  "application/json",
	"GET /v1/tokens/{device}/{application}/handovers": "application/json",
	"GET /v1/users/{user}":                            "application/json",
	"GET /v1/leavers":                                 "application/json",
	"POST /v1/leavers":                                "application/json",
	"POST /v1/leavers/import":                         "application/json",
	"POST /v1/leavers/{user}/settle":                  "application/json",
	"POST /v1/leavers/{user}/remove":                  "application/json",
	"GET /v1/lifecycle":                               "application/json",
	"GET /v1/types":                                   "application/json",
	"GET /v1/approvals":                               "application/json",
	"GET /v1/approvals/{id}":                          "application/json",
	"POST /v1/approvals/{id}/approve":                 "application/json",
	"POST /v1/approvals/{id}/reject":                  "application/json",
	"POST /v1/tokens/{device}/{application}/reseed":   "application/x-ndjson",
	"POST /v1/tokens/{device}/{application}/wipe":     "application/x-ndjson",
	"POST /v1/tokens/{device}/{application}/reissue":  "application/x-ndjson",
	"POST /v1/tokens/{device}/{application}/resolve":  "application/x-ndjson",
	"POST /v1/tokens/{device}/{application}/test":     "application/x-ndjson",
	"POST /v1/tokens/{device}/{application}/resync":   "application/x-ndjson",
	"POST /v1/tokens/{device}/{application}/trace":    "application/x-ndjson",
	"GET /v1/piv/{device}":                            "application/json",
	"POST /v1/piv/{device}/provision":                 "application/x-ndjson",
	"POST /v1/piv/{device}/csr":                       "application/json",
	"POST /v1/piv/{device}/certificate":               "application/json",
	"POST /v1/piv/{device}/unblock":                   "application/x-ndjson",
	"POST /v1/piv/{device}/pin":                       api.SecretType,
	"POST /v1/piv/{device}/pin/set":                   "application/json",
	"GET /v1/piv/revocations":                         "application/json",
	"POST /v1/piv/revocations/{sha256}/done":          "application/json",
}

func TestOpenAPIDescribesTheAPI(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	doc := d.document()
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("OpenAPI version %q", doc.OpenAPI)
	}
	described := map[string]string{}
	for path, actions := range doc.Paths {
		for method, a := range actions {
			name := strings.ToUpper(method) + " " + path
			if a.OperationID == "" || a.Summary == "" {
				t.Errorf("%s has no operationId or summary", name)
			}
			for status, response := range a.Responses {
				for kind, c := range response.Content {
					switch {
					case status == "200":
						described[name] = kind
					case status == "202" && kind == "application/json" && c.Schema.Ref == a.Responses["200"].Content[kind].Schema.Ref:
					case status != "default" || kind != "application/json" || c.Schema.Ref != "#/components/schemas/Error":
						t.Errorf("%s: status %s is described as %s %s, not as the desk's error", name, status, kind, c.Schema.Ref)
					}
				}
			}
			if a.Responses["default"] == nil {
				t.Errorf("%s does not describe its errors", name)
			}
			var inPath []string
			for _, p := range a.Parameters {
				if p.In == "path" {
					inPath = append(inPath, "{"+p.Name+"}")
				}
			}
			if want := regexp.MustCompile(`\{[a-z0-9]+\}`).FindAllString(path, -1); !slices.Equal(inPath, want) {
				t.Errorf("%s describes the path parameters %v, not %v", name, inPath, want)
			}
		}
	}
	for name, kind := range promised {
		if described[name] != kind {
			t.Errorf("%s is described as %q, not %q", name, described[name], kind)
		}
	}
	for _, path := range []string{"/v1/vault/init", "/v1/vault/unlock", "/v1/vault/change-pin", "/v1/vault/restore", "/v1/vault/move", "/v1/piv/{device}/csr", "/v1/piv/{device}/pin/set"} {
		body := doc.Paths[path]["post"].RequestBody
		if body.Content[api.SecretType].Schema == nil || !strings.Contains(body.Description, "PIN") {
			t.Errorf("%s does not describe its frame: %+v", path, body)
		}
	}
	if e := doc.Components.Schemas["Error"]; e == nil || !slices.Equal(e.Required, []string{"code", "message"}) {
		t.Errorf("the error is described as %+v", e)
	}
}

package trace

import (
	"strings"

	"tokendesk/vault/secret"
)

// Published is a value that everybody knows, and its name in traces.
type Published struct {
	Name, Source string
	value        string
}

// Seeds are the only ones that get into traces. (RFC 6238 begins with that of RFC 4226, and its others are longer than a device
// takes.)
var Seeds = []Published{
	{"rfc4226", "RFC 4226, appendix D", "12345678901234567890"},
	{"rfc2202-2", "RFC 2202, section 3, case 2: four bytes", "Jefe"},
	{"rfc2202-5", "RFC 2202, section 3, case 5", strings.Repeat("\x0c", 20)},
}

// Passwords are the only access codes, PINs and passwords that get into traces. (These of six bytes can be access codes.)
var Passwords = []Published{
	{"code-a", "010203040506", "\x01\x02\x03\x04\x05\x06"},
	{"code-b", "060504030201", "\x06\x05\x04\x03\x02\x01"},
	{"admin-pin", "a Nitrokey's admin PIN as it leaves the factory", "12345678"},
	{"user-pin", "a Nitrokey's user PIN as it leaves the factory", "123456"},
	{"wrong-pin", "a PIN that is neither", "87654321"},
}

func published(table []Published, name string) (Published, bool) {
	for _, p := range table {
		if p.Name == name {
			return p, true
		}
	}
	return Published{}, false
}

// secretOf is the value; empty for the name that is empty.
func secretOf(table []Published, name string) secret.Secret {
	p, _ := published(table, name)
	return secret.New([]byte(p.value))
}

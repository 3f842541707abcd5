package notice

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode"
)

// maxAddress is the longest path of RFC 5321 section 4.5.3.1.3, without its brackets.
const maxAddress = 254

// mailbox is an address as people have them: a dot-string of ASCII at a domain (RFC 5321 section 4.1.2). Quoted names, in which
// anything could stand, comments and address literals are none.
var mailbox = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_` + "`" + `{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_` + "`" + `{|}~-]+)*@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// CheckAddress refuses what mail cannot be sent to, or should not be.
func CheckAddress(address string) error {
	if len(address) > maxAddress || !mailbox.MatchString(address) {
		return fmt.Errorf("%.100q is not a mail address that the desk takes: name@domain, in ASCII", address)
	}
	return nil
}

// ParseSender reads an address that may have a name before it: "Token desk <desk@example.org>".
func ParseSender(text string) (mail.Address, error) {
	a, err := mail.ParseAddress(text)
	if err != nil || strings.ContainsFunc(a.Name, unicode.IsControl) || CheckAddress(a.Address) != nil {
		return mail.Address{}, fmt.Errorf("an address has the form name@domain or Words <name@domain>")
	}
	return *a, nil
}

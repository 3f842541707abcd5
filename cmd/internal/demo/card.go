package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
)

// card is alice's key as her smart card.
type card struct {
	*story
	ca          *authority
	certificate *x509.Certificate
	pin         string // as she reads it in her letter
}

func (c *card) device() string { return string(device.YubiKeyID(alicesKey)) }

func (c *card) file(name string) string { return filepath.Join(c.Dir, "card", name) }

// provision has a key made on the card, which proves that to somebody else's program, too.
func (c *card) provision(ctx context.Context) error {
	if err := c.MakeDir(c.file("")); err != nil {
		return err
	}
	if err := c.desk(ctx, "piv", "provision", c.device(), "--user", "alice", "--csr-dir", c.file("")); err != nil {
		return err
	}
	attestation, err := c.tool(ctx, "", "yubico-piv-tool", "-a", "attest", "-s", "9a")
	if err != nil {
		return err
	}
	attested, err := certificateIn(attestation)
	if err != nil {
		return fmt.Errorf("the card's attestation: %w", err)
	}
	request, err := c.request()
	if err != nil {
		return err
	}
	if !bytes.Equal(attested.RawSubjectPublicKeyInfo, request.RawSubjectPublicKeyInfo) {
		return errors.New("the card attests another key than the request is for")
	}
	c.fact("yubico-piv-tool", "the card attests the key of the request: %s, signed by %s", attested.Subject.CommonName, attested.Issuer.CommonName)
	return nil
}

// request is what the desk has written for the certificate authority.
func (c *card) request() (*x509.CertificateRequest, error) {
	text, err := os.ReadFile(c.file(c.device() + "-9a.csr"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the certificate request is not PEM")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// certify has an authority that nobody knew before answer the request. A certificate for another key is not taken.
func (c *card) certify(ctx context.Context) (err error) {
	if c.ca, err = newAuthority(); err != nil {
		return err
	}
	request, err := c.request()
	if err != nil {
		return err
	}
	other, err := stranger()
	if err != nil {
		return err
	}
	foreign, err := c.ca.issue(other)
	if err != nil {
		return err
	}
	if c.certificate, err = c.ca.issue(request); err != nil {
		return err
	}
	c.fact("a certificate authority, made just now", "its certificate number %x is for %s", c.certificate.SerialNumber, c.certificate.Subject)
	for name, certificate := range map[string]*x509.Certificate{"foreign.pem": foreign, "alice.pem": c.certificate, "ca.pem": c.ca.certificate} {
		if err := c.write(name, pemOf("CERTIFICATE", certificate.Raw)); err != nil {
			return err
		}
	}
	if err := c.refused(ctx, "the same for another key", "piv", "import-cert", c.device(), c.file("foreign.pem")); err != nil {
		return err
	}
	return c.desk(ctx, "piv", "import-cert", c.device(), c.file("alice.pem"))
}

// write writes a file that the officer reads.
func (c *card) write(name string, text []byte) error {
	return os.WriteFile(c.file(name), text, 0o644)
}

// refused runs tokendesk with something that it must not do.
func (c *card) refused(ctx context.Context, what string, args ...string) error {
	out, err := c.Command(ctx, "tokendesk", args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		return fmt.Errorf("%s is not refused: %v: %s", what, err, out)
	}
	c.fact(what, "%s", strings.Join(strings.Fields(string(out)), " "))
	return nil
}

// read has other programs read what is on the card.
func (c *card) read(ctx context.Context) error {
	text, err := c.tool(ctx, "", "pkcs15-tool", "--read-certificate", "1")
	if err != nil {
		return err
	}
	found, err := certificateIn(text)
	if err != nil {
		return fmt.Errorf("pkcs15-tool: %w", err)
	}
	if !found.Equal(c.certificate) {
		return fmt.Errorf("pkcs15-tool reads another certificate, for %s", found.Subject)
	}
	c.fact("pkcs15-tool", "the card holds exactly that certificate, for %s", found.Subject)
	info, err := c.tool(ctx, "", "ykman", "--device", alicesKey.String(), "piv", "info")
	if err != nil {
		return err
	}
	for line := range strings.Lines(info) {
		if strings.Contains(line, "tries remaining") || strings.Contains(line, "Subject DN") || strings.Contains(line, "Issuer DN") {
			c.fact("ykman", "%s", strings.TrimSpace(line))
		}
	}
	return nil
}

// pinLine is where the PIN stands in a letter.
var pinLine = regexp.MustCompile(`(?m)^ +PIN +([0-9]{6,8})$`)

// sign has alice open her letter, and sign with her card, which takes her PIN and no other.
func (c *card) sign(ctx context.Context) error {
	letter, err := c.Command(ctx, "tokendesk", "piv", "pin", c.device(), "--letter").Output()
	if err != nil {
		return fmt.Errorf("tokendesk piv pin: %w", err)
	}
	found := pinLine.FindSubmatch(letter)
	if found == nil {
		return errors.New("the PIN letter has no PIN")
	}
	c.pin = string(found[1])
	c.fact("the PIN letter, which nobody keeps", "%s", strings.TrimSpace(string(found[0])))
	if err := c.refused(ctx, "a second letter", "piv", "pin", c.device(), "--letter"); err != nil {
		return err
	}
	if err := c.write("contract", []byte("alice signs this\n")); err != nil {
		return err
	}
	if err := c.write("public.pem", pemOf("PUBLIC KEY", c.certificate.RawSubjectPublicKeyInfo)); err != nil {
		return err
	}
	if err := c.signature(ctx, wrongPIN(c.pin)); err == nil {
		return errors.New("the card signs with a wrong PIN")
	}
	c.fact("yubico-piv-tool", "with another PIN the card does not sign")
	if err := c.signature(ctx, c.pin); err != nil {
		return err
	}
	said, err := c.tool(ctx, "", "openssl", "dgst", "-sha256", "-verify", c.file("public.pem"), "-signature", c.file("signature"), c.file("contract"))
	if err != nil {
		return err
	}
	c.fact("openssl", "the card's signature, under the key of her certificate: %s", strings.TrimSpace(said))
	return nil
}

// wrongPIN differs from a PIN in one digit.
func wrongPIN(pin string) string {
	last := len(pin) - 1
	return pin[:last] + string('0'+(pin[last]-'0'+1)%10)
}

// signature has the card sign, by a program that knows nothing of the desk.
func (c *card) signature(ctx context.Context, pin string) error {
	_, err := c.tool(ctx, pin+"\n", "yubico-piv-tool", "--stdin-input", "-a", "verify-pin", "--sign", "-s", "9a", "-A", "ECCP256", "-H", "SHA256",
		"-i", c.file("contract"), "-o", c.file("signature"))
	return err
}

// wiped sees that nothing of alice's is left on the card after the reissue, and that her certificate is to be revoked.
func (c *card) wiped(ctx context.Context) error {
	if err := c.signature(ctx, c.pin); err == nil {
		return errors.New("the card still signs for alice")
	}
	status, err := c.tool(ctx, "", "yubico-piv-tool", "-a", "status")
	if err != nil {
		return err
	}
	if strings.Contains(status, "Subject DN") {
		return fmt.Errorf("the card still holds a certificate: %s", status)
	}
	c.fact("yubico-piv-tool", "her PIN signs nothing any more, and the card holds no certificate")
	var due api.Certificates
	if err := c.ask(ctx, &due, "piv", "revocations"); err != nil {
		return err
	}
	if len(due.Certificates) != 1 || due.Certificates[0].Serial != fmt.Sprintf("%x", c.certificate.SerialNumber) {
		return fmt.Errorf("to be revoked are %+v", due.Certificates)
	}
	return c.revoke(ctx, due.Certificates[0].SHA256)
}

// revoke has the authority do what the desk cannot, and the desk told so.
func (c *card) revoke(ctx context.Context, fingerprint string) error {
	list, err := c.ca.revoke(c.certificate)
	if err != nil {
		return err
	}
	if err := c.write("crl.pem", pemOf("X509 CRL", list)); err != nil {
		return err
	}
	verify := []string{"verify", "-CAfile", c.file("ca.pem"), "-crl_check", "-CRLfile", c.file("crl.pem"), c.file("alice.pem")}
	out, err := exec.CommandContext(ctx, "openssl", verify...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "certificate revoked") {
		return fmt.Errorf("openssl takes a revoked certificate: %v: %s", err, out)
	}
	c.fact("openssl", "with the authority's list of revoked certificates: certificate revoked")
	return c.desk(ctx, "piv", "revocations", "--done", fingerprint)
}

// tool runs a program that is not the desk's, with some input, and returns what it prints.
func (c *card) tool(ctx context.Context, input, program string, args ...string) (string, error) {
	cmd := c.CardTool(ctx, program, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, problem.String())
	}
	return out.String(), nil
}

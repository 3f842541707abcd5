package pcsc

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/ebfe/scard"

	"tokendesk/device"
)

// ErrNoService means that pcscd cannot be reached, so that no smart card is seen.
var ErrNoService = errors.New("smart cards are not seen, because pcscd does not run")

// daemonFile is what Debian's package pcscd installs.
const daemonFile = "/usr/sbin/pcscd"

// noService says how to come to a pcscd that answers.
func noService(file string) *device.CureError {
	if _, err := os.Stat(file); err != nil {
		return &device.CureError{
			Err:  fmt.Errorf("%w: it is not installed", ErrNoService),
			Cure: "install pcscd: as root: apt install pcscd libccid",
		}
	}
	return &device.CureError{Err: ErrNoService, Cure: "start pcscd: as root: systemctl start pcscd.socket"}
}

func gone() *device.CureError {
	return &device.CureError{Err: device.ErrGone, Cure: "insert it again"}
}

func mute() *device.CureError {
	return &device.CureError{Err: device.ErrMute, Cure: "pull the key and insert it again"}
}

// denied says that polkit does not allow an action. pcscd ends the connection for it without a word, as it does when it ends
// itself (pcscd, winscard_svc.c: IsClientAuthorized; libpcsclite, winscard_msg.c: MessageReceive).
func denied(action string) *device.CureError {
	return &device.CureError{
		Err:  fmt.Errorf("%w: pcscd refuses this user", device.ErrPermission),
		Cure: "let polkit allow org.debian.pcsc-lite." + action + " to it, by a rule in /etc/polkit-1/rules.d",
	}
}

func isHangUp(err error) bool {
	return errors.Is(err, scard.ErrCommError) || errors.Is(err, scard.ErrSecurityViolation) || errors.Is(err, scard.ErrNoService)
}

// establish connects to pcscd. Whoever is hung up on may be too late with the first message as well.
func establish() (*scard.Context, error) {
	c, err := scard.EstablishContext()
	switch {
	case isHangUp(err) && listens():
		return nil, denied("access_pcsc")
	case err != nil:
		return nil, explain(err)
	}
	return c, nil
}

// listens tells whether somebody accepts connections at pcscd's socket, which is where libpcsclite looks for it.
func listens() bool {
	conn, err := net.Dial("unix", cmp.Or(os.Getenv("PCSCLITE_CSOCK_NAME"), "/run/pcscd/pcscd.comm"))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// explain says what a failure of PC/SC means, if its number alone tells.
func explain(err error) error {
	code, ok := errors.AsType[scard.Error](err)
	if !ok {
		return err
	}
	switch code {
	case scard.ErrNoService, scard.ErrServiceStopped, scard.ErrInvalidHandle:
		return noService(daemonFile)
	case scard.ErrCommError, scard.ErrSecurityViolation: // the connection has ended
		return noService(daemonFile)
	case scard.ErrNoSmartcard, scard.ErrRemovedCard, scard.ErrUnknownReader, scard.ErrReaderUnavailable, scard.ErrNoReadersAvailable:
		return gone()
	case scard.ErrUnresponsiveCard, scard.ErrUnpoweredCard, scard.ErrInvalidAtr, scard.ErrUnsupportedCard:
		return mute()
	case scard.ErrSharingViolation:
		return busy(holders("/proc"))
	case scard.ErrProtoMismatch:
		return &device.CureError{Err: errors.New("the card does not speak the protocol T=1, as every YubiKey does"), Cure: "insert a YubiKey"}
	case scard.ErrResetCard:
		return &device.CureError{Err: fmt.Errorf("%w: another program has reset the card", device.ErrBusy), Cure: "try again"}
	}
	return fmt.Errorf("PC/SC fails: %w", err)
}

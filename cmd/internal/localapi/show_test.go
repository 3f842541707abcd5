package localapi

import (
	"context"
	"slices"
	"testing"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// Credentials are named by people: those of another tenant are not told of, and the key is none that nobody knows all the same.
func TestCredentialsOfAnotherTenant(t *testing.T) {
	a := newArchive(t)
	a.Runner = &provision.Runner{Vault: a.Vault}
	key := device.YubiKeyID(10000001)
	ours, theirs := device.AppToken(key, "oath:alice"), device.AppToken(key, "oath:boss")
	a.update(func(tx *vault.Tx) error {
		for id, tenant := range map[device.TokenID]string{ours: "ours", theirs: "theirs"} {
			token := vault.Token{ID: id, Serial: 10000001, Generation: 1, Status: vault.Active, Digits: 6, Tenant: tenant}
			if err := put(tx, token); err != nil {
				return err
			}
		}
		return nil
	})
	seen := keys.Key{ID: key, Serial: 10000001, Holds: []device.Holding{{Name: "oath", Used: 2}}}
	told := func(ctx context.Context) (names []string) {
		k, err := a.key(ctx, seen)
		if err != nil || k.Unknown || len(k.Applets) != 1 || k.Applets[0].Used != 2 {
			t.Fatalf("%+v, %v", k, err)
		}
		for _, s := range k.Applets[0].Tokens {
			names = append(names, s.Token)
		}
		slices.Sort(names)
		return names
	}
	in := func(tenant string) context.Context {
		return context.WithValue(a.ctx, rolesKey, reach{tenants: map[string][]string{tenant: officers.roles}})
	}
	for _, c := range []struct {
		who  string
		ctx  context.Context
		want []string
	}{
		{"the desk", a.ctx, []string{string(ours), string(theirs)}}, {"ours", in("ours"), []string{string(ours)}},
		{"theirs", in("theirs"), []string{string(theirs)}}, {"others", in("others"), nil},
	} {
		if got := told(c.ctx); !slices.Equal(got, c.want) {
			t.Errorf("%s: told of %q, not %q", c.who, got, c.want)
		}
	}
}

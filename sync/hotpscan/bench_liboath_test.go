//go:build liboath

package hotpscan_test

import "tokendesk/sync/hotpscan/liboath"

func init() {
	others = append(others, turn{"liboath", 1, func() bool {
		found, err := liboath.Validate(benchSeed, 0, benchWindow-1, benchCode)
		return found || err != nil
	}})
}

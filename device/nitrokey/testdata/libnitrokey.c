// A host program of libnitrokey whose USB is two pipes: feature reports go out on 4 and come in on 3. It is used by
// libnitrokey_test.go, and says what it finds, a line each.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <wchar.h>

enum { REPORT = 65 };

// libnitrokey calls hidapi by these names, and finds them here first.
typedef struct hid_device_ hid_device;
static int there;

hid_device *hid_open(unsigned short vendor, unsigned short product, const wchar_t *serial)
{
	const char *id = getenv("DEVICE");
	unsigned int v = 0, p = 0;
	(void)serial;
	if (id == NULL || sscanf(id, "%x:%x", &v, &p) != 2 || v != vendor || p != product)
		return NULL;
	return (hid_device *)&there;
}

hid_device *hid_open_path(const char *path) { (void)path; return NULL; }
void hid_close(hid_device *d) { (void)d; }
int hid_exit(void) { return 0; }
void *hid_enumerate(unsigned short v, unsigned short p) { (void)v, (void)p; return NULL; }
void hid_free_enumeration(void *e) { (void)e; }
const wchar_t *hid_error(hid_device *d) { (void)d; return NULL; }

int hid_send_feature_report(hid_device *d, const unsigned char *data, size_t length)
{
	(void)d;
	if (length != REPORT || write(4, "S", 1) != 1 || write(4, data, REPORT) != REPORT)
		return -1;
	return REPORT;
}

int hid_get_feature_report(hid_device *d, unsigned char *data, size_t length)
{
	size_t have = 0;
	(void)d;
	if (length != REPORT || write(4, "G", 1) != 1)
		return -1;
	while (have < REPORT) {
		ssize_t n = read(3, data + have, REPORT - have);
		if (n <= 0)
			return -1;
		have += (size_t)n;
	}
	return REPORT;
}

// What is used of libnitrokey (NK_C_API.h).
int NK_login(const char *model);
int NK_logout(void);
void NK_set_debug(bool state);
char *NK_device_serial_number(void);
uint8_t NK_get_major_firmware_version(void);
uint8_t NK_get_minor_firmware_version(void);
uint8_t NK_get_admin_retry_count(void);
uint8_t NK_get_last_command_status(void);
int NK_first_authenticate(const char *pin, const char *temporary);
char *NK_get_hotp_slot_name(uint8_t slot);
char *NK_get_hotp_code(uint8_t slot);
int NK_erase_hotp_slot(uint8_t slot, const char *temporary);
int NK_write_hotp_slot(uint8_t slot, const char *name, const char *secret, uint64_t counter, bool eight, bool enter, bool id,
		       const char *token_id, const char *temporary);

int main(int argc, char **argv)
{
	const char *model = argc > 1 ? argv[1] : "", *seed = argc > 2 ? argv[2] : "";
	const char *code, *next;
	int ended;

	NK_set_debug(false);
	printf("login %d\n", NK_login(model));
	printf("device %s %d.%d\n", NK_device_serial_number(), NK_get_major_firmware_version(), NK_get_minor_firmware_version());
	code = NK_get_hotp_code(1), next = NK_get_hotp_code(1);
	printf("slot 2 %s %s %s\n", NK_get_hotp_slot_name(1), code, next);
	NK_get_hotp_slot_name(0);
	printf("slot 1 status %d\n", NK_get_last_command_status());
	ended = NK_first_authenticate("87654321", "temporary");
	printf("wrong PIN %d, tries %d\n", ended, NK_get_admin_retry_count());
	ended = NK_first_authenticate("12345678", "temporary");
	printf("PIN %d, tries %d\n", ended, NK_get_admin_retry_count());
	printf("write slot 1 %d\n", NK_write_hotp_slot(0, "six digits", seed, 1, false, false, false, "", "temporary"));
	code = NK_get_hotp_code(0), next = NK_get_hotp_code(0);
	printf("slot 1 %s %s %s\n", NK_get_hotp_slot_name(0), code, next);
	printf("write slot 3 %d\n", NK_write_hotp_slot(2, "eight", seed, 7, true, true, false, "", "temporary"));
	printf("erase slot 2 %d\n", NK_erase_hotp_slot(1, "temporary"));
	printf("erase slot 3 without the PIN %d\n", NK_erase_hotp_slot(2, "nonsense") != 0);
	NK_logout();
	return 0;
}

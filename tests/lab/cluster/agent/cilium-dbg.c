// `cilium-dbg` of the lab's replay agent: sends its words to the daemon beside it (daemon.py) and
// prints the answer. Not Cilium: `cilium-dbg version` says so.
//
// Files in the node's folder of the lab's state switch on what the replay else lacks (switches.py):
//   agent-cost     burn the CPU of the real program, which starts Go and decodes each entry
//   agent-hangs    commands over the agent's socket never end; `bpf` opens the maps
//   agent-more/W   is printed after the answer to the words W, parted by blanks
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#define START_MS 45		// measured: 38 to 55, --help and version included
#define HUBBLE_START_MS 28	// measured: 27 to 30
#define NS_PER_BYTE 20		// measured: 0.5 s for 60,000 conntrack entries, 24 MB

static char buffer[65536];

static void burn(long long ns)
{
	struct timespec t;

	if (access("agent-cost", F_OK))
		return;
	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while (t.tv_sec * 1000000000LL + t.tv_nsec < ns);
}

static int print(int out, size_t n)
{
	ssize_t wrote;

	for (size_t at = 0; at < n; at += wrote)
		if ((wrote = write(out, buffer + at, n - at)) < 0)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_un there = {.sun_family = AF_UNIX, .sun_path = "/run/ebl-agent.sock"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), hubble = !strcmp(basename(argv[0]), "hubble");
	long long cost = (hubble ? HUBBLE_START_MS : START_MS) * 1000000LL;
	char more[1024] = "agent-more/";
	uint32_t head[2] = {}, left;
	ssize_t n;
	size_t got = 0;

	if (chdir(getenv("EBPFNET_LAB_STATE") ?: "/") || chdir(getenv("NODE") ?: "/"))
		return perror("cilium-dbg (lab replay)"), 1;
	burn(cost);
	if ((argc < 2 || strcmp(argv[1], "bpf")) && !access("agent-hangs", F_OK))
		pause();
	if (hubble)
		return fprintf(stderr, "failed to connect to 'unix:///var/run/cilium/hubble.sock'\n"), 1;
	if (connect(fd, (struct sockaddr *)&there, sizeof(there)))
		return perror("cilium-dbg (lab replay): the daemon does not answer"), 1;
	for (int i = 1; i < argc; i++) {
		if (write(fd, argv[i], strlen(argv[i]) + 1) < 0)
			return perror("cilium-dbg (lab replay)"), 1;
		strncat(more, argv[i], sizeof(more) - strlen(more) - 2);
		if (i + 1 < argc)
			strcat(more, " ");
	}
	shutdown(fd, SHUT_WR);
	// exit code, length of stdout; then stdout, then stderr to the end.
	while (got < sizeof(head)) {
		n = read(fd, (char *)head + got, sizeof(head) - got);
		if (n <= 0)
			return fprintf(stderr, "cilium-dbg (lab replay): no answer\n"), 1;
		got += n;
	}
	left = head[1];
	if (argc > 1 && !strcmp(argv[1], "monitor") && !head[0])
		fprintf(stderr, "Listening for events on 2 CPUs with 64x4096 of shared memory\n"
			"Press Ctrl-C to quit\n");
	while ((n = read(fd, buffer, left && left < sizeof(buffer) ? left : sizeof(buffer))) > 0) {
		if (print(left ? 1 : 2, n))
			return 1;
		burn(cost += n * NS_PER_BYTE);
		if (left)
			left -= n;
	}
	fd = open(more, O_RDONLY);
	while (fd >= 0 && (n = read(fd, buffer, sizeof(buffer))) > 0) {
		if (print(1, n))
			return 1;
		burn(cost += n * NS_PER_BYTE);
	}
	return head[0];
}

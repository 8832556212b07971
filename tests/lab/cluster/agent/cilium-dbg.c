// `cilium-dbg` of the lab's replay agent: sends its words to the daemon beside it (daemon.py) and
// prints the answer. Not Cilium: `cilium-dbg version` says so.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un there = {.sun_family = AF_UNIX, .sun_path = "/run/ebl-agent.sock"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), out = 0;
	static char buffer[65536];
	uint32_t head[2] = {}, left;
	ssize_t n;
	size_t got = 0;

	if (connect(fd, (struct sockaddr *)&there, sizeof(there)))
		return perror("cilium-dbg (lab replay): the daemon does not answer"), 1;
	for (int i = 1; i < argc; i++)
		if (write(fd, argv[i], strlen(argv[i]) + 1) < 0)
			return perror("cilium-dbg (lab replay)"), 1;
	shutdown(fd, SHUT_WR);
	// exit code, length of stdout; then stdout, then stderr to the end.
	while (got < sizeof(head)) {
		n = read(fd, (char *)head + got, sizeof(head) - got);
		if (n <= 0)
			return fprintf(stderr, "cilium-dbg (lab replay): no answer\n"), 1;
		got += n;
	}
	left = head[1];
	while ((n = read(fd, buffer, left && left < sizeof(buffer) ? left : sizeof(buffer))) > 0) {
		out = left ? 1 : 2;
		for (ssize_t at = 0; at < n;) {
			ssize_t wrote = write(out, buffer + at, n - at);

			if (wrote < 0)
				return 1;
			at += wrote;
		}
		if (left)
			left -= n;
	}
	return head[0];
}

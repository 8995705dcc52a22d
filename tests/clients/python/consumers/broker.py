"""Publishing to the broker as a foreign producer, and looking into queues.

Used by ../queues.py; pika only. Looking takes nothing: what was got is given back by
closing the channel.
"""

import sys
import time

import pika

# Messages that may wait for their confirm: many, since the broker syncs them together.
WINDOW = 1000
PERSISTENT = 2
# So long after the last message one asks who else takes some.
LOOK_S = 2
# RabbitMQ asks a quorum queue for its counts and says 0 and 0 of one that takes this long.
UNKNOWN_S = 0.25
# How often one asks a broker that is too busy to know, and waits for a message that it has.
PATIENCE = 40


def publish(url, messages):
    """Publishes all, persistent, mandatory and confirmed; gives how many."""
    return Producer(url, messages).run()


class Producer:
    """One connection with a window of unconfirmed messages."""

    def __init__(self, url, messages):
        self.messages = iter(messages)
        self.open, self.sent, self.ended, self.failure = set(), 0, False, None
        self.connection = pika.SelectConnection(
            pika.URLParameters(url), on_open_callback=self.connected, on_open_error_callback=self.lost, on_close_callback=self.lost
        )

    def run(self):
        self.connection.ioloop.start()
        if self.failure or not self.ended or self.open:
            sys.exit(f"publishing broke off after {self.sent}: {self.failure}")
        return self.sent

    def connected(self, connection):
        connection.channel(on_open_callback=self.opened)

    def opened(self, channel):
        self.channel = channel
        channel.add_on_return_callback(self.returned)
        channel.add_on_close_callback(self.closed)
        channel.confirm_delivery(self.confirmed, callback=lambda _: self.fill())

    def fill(self):
        while len(self.open) < WINDOW and not self.ended:
            message = next(self.messages, None)
            if message is None:
                self.ended = True
                break
            properties = pika.BasicProperties(delivery_mode=PERSISTENT, **message.properties)
            self.channel.basic_publish(message.exchange, message.key, message.body, properties, mandatory=True)
            self.sent += 1
            self.open.add(self.sent)
        if self.ended and not self.open:
            self.connection.close()

    def confirmed(self, frame):
        if isinstance(frame.method, pika.spec.Basic.Nack):
            self.failure = f"not taken: {frame.method}"
            self.connection.close()
            return
        tag = frame.method.delivery_tag
        self.open -= {each for each in self.open if each <= tag} if frame.method.multiple else {tag}
        if len(self.open) <= WINDOW // 2:
            self.fill()

    def returned(self, channel, method, properties, body):
        self.failure = f"no queue for {method.exchange} {method.routing_key}"
        self.connection.close()

    def closed(self, channel, reason):
        if self.open or not self.ended:
            self.failure = self.failure or reason
            self.lost(self.connection, reason)

    def lost(self, connection, reason):
        if self.open or not self.ended:
            self.failure = self.failure or reason
        connection.ioloop.stop()


class Looker:
    """Looks into queues and leaves everything in them."""

    def __init__(self, url):
        self.connection = pika.BlockingConnection(pika.URLParameters(url))

    def close(self):
        self.connection.close()

    def declared(self, queues):
        """What the broker says of each queue: messages that wait, and consumers."""
        return {queue: self.known(queue) for queue in queues}

    def known(self, queue):
        for _ in range(PATIENCE):
            channel, began = self.connection.channel(), time.monotonic()
            try:
                said = channel.queue_declare(queue, passive=True).method
            except pika.exceptions.ChannelClosedByBroker:
                # No such queue; the channel is gone with the question.
                return None
            took_s = time.monotonic() - began
            channel.close()
            if said.message_count or said.consumer_count or took_s < UNKNOWN_S:
                return said
        sys.exit(f"the broker is too busy to say what is in {queue}")

    def waiting(self, queues):
        """How many messages wait in each queue; None where there is none."""
        return {queue: said and said.message_count for queue, said in self.declared(queues).items()}

    def consumed(self, queues):
        """The queues that have consumers, with how many."""
        found = self.declared(queues).items()
        return {queue: said.consumer_count for queue, said in found if said and said.consumer_count}

    def messages(self, queue):
        """All messages that wait in a queue, as (method, properties, body)."""
        found, count = [], self.waiting([queue])[queue]
        if not count:
            return found
        channel = self.connection.channel()
        # Ends with the last one, or where another consumer takes some.
        silences = 0
        for got in channel.consume(queue, inactivity_timeout=LOOK_S):
            if got[0] is not None:
                found.append(got)
                if len(found) == count:
                    break
                continue
            silences += 1
            said = self.known(queue)
            # What is on its way to this look counts as taken, too.
            if said is None or said.consumer_count > 1 or silences == PATIENCE:
                break
        channel.close()
        return found

    def holds(self, counts):
        """Queues that hold fewer or more waiting messages than these: (least, most)."""
        found = self.waiting(counts)
        return {
            queue: (found[queue], (least, most))
            for queue, (least, most) in counts.items()
            if found[queue] is None or not least <= found[queue] <= most
        }

    def until(self, what, seconds, check):
        """Awaits a condition; `check` gives what is still wrong, or nothing."""
        until = time.monotonic() + seconds
        while wrong := check():
            if time.monotonic() > until:
                sys.exit(f"not within {seconds} s: {what}: {wrong}")
            self.connection.sleep(0.2)

"""A service in another language, written with pika as its documentation has it.

Reads a request from the standard input and writes an answer to the standard output, both JSON:

    exchange   where to publish and listen
    listen     a topic to listen to, from before the first publish (optional)
    publish    messages to publish: topic, headers, body (text)
    expect     how many messages to hear before ending
    reply      whether to answer each message that is heard on its cap-callback-name, with this body (optional)

The answer is the list of messages heard.
"""

import json
import os
import sys

import pika


def heard(method, properties, body):
    names = ["content_type", "content_encoding", "correlation_id", "reply_to", "expiration", "timestamp", "type",
             "user_id", "app_id", "priority", "message_id", "delivery_mode"]
    return {
        "exchange": method.exchange,
        "routing_key": method.routing_key,
        "headers": properties.headers,
        "body": body.decode("utf-8"),
        "properties": {name: getattr(properties, name) for name in names if getattr(properties, name) is not None},
    }


def main():
    request = json.load(sys.stdin)
    exchange = request["exchange"]
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    queue = None
    if "listen" in request:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange, request["listen"])
    print("ready", file=sys.stderr, flush=True)
    for message in request.get("publish", []):
        channel.basic_publish(
            exchange,
            message["topic"],
            message["body"].encode("utf-8"),
            pika.BasicProperties(headers=message["headers"]),
        )
    answer = []
    if request.get("expect", 0) > 0:
        for method, properties, body in channel.consume(queue, inactivity_timeout=50):
            if method is None:
                sys.exit(f"heard {len(answer)} of {request['expect']} messages")
            channel.basic_ack(method.delivery_tag)
            answer.append(heard(method, properties, body))
            if "reply" in request:
                reply(channel, exchange, properties.headers, request["reply"])
            if len(answer) == request["expect"]:
                break
    channel.close()
    connection.close()
    json.dump(answer, sys.stdout)


def reply(channel, exchange, asked, body):
    topic = asked["cap-callback-name"]
    headers = {"cap-msg-id": "reply-to-" + asked["cap-msg-id"], "cap-msg-name": topic}
    channel.basic_publish(exchange, topic, body.encode("utf-8"), pika.BasicProperties(headers=headers))


main()

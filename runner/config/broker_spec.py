"""The model of `broker`: a URL, several URLs, or a host with port, vhost, user and password; and TLS."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, model_validator

from runner.config.broker_urls import EXAMPLE_URL, broker_url
from runner.config.field_types import TEXT
from runner.config.fields import DAY_S, Duration, Text, choice, duration, one_or_many, text, whole_number
from runner.config.messages import describe, spec_error
from runner.config.name_fields import BrokerUrl
from runner.config.spec_model import Conflict, SpecModel, raise_conflicts

TopologyMode = Literal["manage", "verify", "ignore"]

MEMORY: Final = "memory"


class TlsSpec(SpecModel):
    """Certificates for an amqps:// broker. Paths are relative to the pipeline's file."""

    ca: Text | None = Field(default=None, description="File with the CA certificates to trust.")
    cert: Text | None = Field(default=None, description="File with the client certificate.")
    key: Text | None = Field(default=None, description="File with the private key of the client certificate.")

    def conflicts(self) -> Iterator[Conflict]:
        if self.key is not None and self.cert is None:
            yield Conflict(("key",), '"key" needs "cert"', 'add "cert", or remove "key"')


def _urls(value: object) -> object:
    if value is None:
        raise spec_error("bad-url", "the broker has no URL", "write one, or remove the key for the in-process broker")
    if not isinstance(value, str | list | tuple):
        raise spec_error(
            "wrong-type", f"must be a URL or a list of URLs, not {describe(value)}", f"write {EXAMPLE_URL}"
        )
    urls: Any = one_or_many(value)
    if len(urls) > 1 and any(str(url).startswith("file:") for url in urls):
        raise spec_error("bad-url", "a broker in a file cannot be in a list of URLs", 'write "broker: file:PATH" alone')
    return () if urls == (MEMORY,) else urls


def _with_url(schema: dict[str, Any]) -> None:
    """Add the key `url` to the JSON Schema, which knows one name for each field."""
    schema["properties"]["url"] = {
        "type": "string",
        "description": "The broker's URL. For the nodes of a cluster: urls.",
    }


_PARTS: Final = ("host", "port", "vhost", "user", "password")
"""The keys that replace a URL."""


def _password(value: object) -> str:
    """Return a password. The error for a number does not show it."""
    if isinstance(value, str):
        return str(value)
    raise spec_error("wrong-type", "must be text", "put it in quotes, or write ${RABBITMQ_PASSWORD}")


def _vhost(value: object) -> str:
    vhost = text(value)
    if "%2f" in vhost.lower():
        raise spec_error("bad-url", 'the vhost is not encoded here: "%2F" would be a part of its name', 'write "/"')
    return vhost


def _tls(value: object) -> object:
    """Expand the short forms: true and false."""
    return {} if value is True else None if value is False else value


class BrokerSpec(SpecModel):
    """The broker that messages go through. Without a URL: the in-process broker."""

    short_form: ClassVar[str] = "urls"

    model_config = ConfigDict(json_schema_extra=_with_url)

    urls: Annotated[tuple[BrokerUrl, ...], BeforeValidator(_urls)] = Field(
        default=(),
        validation_alias=AliasChoices("urls", "url"),
        repr=False,  # passwords
        description="The URLs of the cluster's nodes; a single one goes under url. Without any: the in-process broker.",
    )
    connect_timeout: Annotated[Duration, duration(0.001, DAY_S)] = Field(
        default=60.0, description="How long to wait for the first connection."
    )
    heartbeat: Annotated[Duration, duration(1, 3600)] = Field(
        default=10.0, description="The interval of AMQP heartbeats."
    )
    topology: Annotated[TopologyMode, choice(TopologyMode)] = Field(
        default="manage",
        description="manage: declare what is missing; verify: only check that it exists; ignore: do neither.",
    )
    host: Text | None = Field(default=None, description="The broker's host, instead of a URL.")
    port: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=65_535)] | None = Field(
        default=None, description="The broker's port. Default: 5672, with tls 5671."
    )
    vhost: Annotated[str, BeforeValidator(_vhost), TEXT] | None = Field(
        default=None, description="The virtual host, not percent-encoded. Default: /."
    )
    user: Text | None = Field(default=None, description="The user name, not percent-encoded.")
    password: Annotated[str, BeforeValidator(_password), TEXT] | None = Field(
        default=None, repr=False, description="The password, not percent-encoded."
    )
    tls: Annotated[TlsSpec | None, BeforeValidator(_tls)] = Field(
        default=None,
        description="true, or certificates. URLs must be amqps://; with host, it switches TLS on.",
    )

    @property
    def node_urls(self) -> tuple[str, ...]:
        """The URLs of the nodes. A broker that is given by its host has one."""
        return (self._url(),) if self.host is not None else self.urls

    def _url(self) -> str:
        login = (self.user, self.password) if self.user is not None and self.password is not None else None
        vhost = "/" if self.vhost is None else self.vhost
        return broker_url(self.host or "", self.port, vhost, login, is_secure=self.tls is not None)

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        given = [name for name in _PARTS if getattr(self, name) is not None]
        if given and self.host is None:
            raise_conflicts(
                [Conflict((given[0],), f'"{given[0]}" needs "host"', 'add "host: localhost", or write a URL')]
            )
        if (self.user is None) != (self.password is None):
            there, missing = ("user", "password") if self.password is None else ("password", "user")
            raise_conflicts([Conflict((there,), f'"{there}" needs "{missing}"', f'add "{missing}"')])
        if self.host is not None:
            try:
                self._url()
            except ValueError as error:
                host, _, port = self.host.rpartition(":")
                help_ = f'write "host: {host}" and "port: {port}"' if host and port.isdecimal() else "correct it"
                raise_conflicts([Conflict(("host",), str(error), help_, "bad-url")])
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        is_secure = self.host is not None or (self.urls and all(url.startswith("amqps://") for url in self.urls))
        if self.tls is not None and not is_secure:
            help_ = "write amqps:// instead of amqp://, or remove it"
            if not self.urls or self.urls[0].startswith("file:"):
                help_ = 'add "url: amqps://…" or "host", or remove it'
            raise_conflicts([Conflict(("tls",), '"tls" needs amqps:// URLs', help_)])
        return self


def _broker(value: object) -> object:
    """Expand the short forms: a URL, or `memory`."""
    if isinstance(value, BrokerSpec):
        return value
    if isinstance(value, str):
        return {"urls": [value]} if value != MEMORY else {}
    if value is not None and not isinstance(value, dict):
        help_ = 'write "broker: memory", "broker: file:PATH" or "broker: amqp://user:password@host:5672/vhost"'
        if isinstance(value, list):
            help_ = "put the list under the key `urls:`, below `broker:`"
        raise spec_error("wrong-type", f"must be memory, a URL or a map, not {describe(value)}", help_)
    if isinstance(value, dict) and "url" in value and "urls" in value:
        raise_conflicts([Conflict(("url",), '"url" and "urls" cannot be used together', "remove one of them")])
    url = next((key for key in ("url", "urls") if isinstance(value, dict) and key in value), None)
    if isinstance(value, dict) and url is not None:
        parts = [part for part in _PARTS if part in value]
        raise_conflicts(
            Conflict((part,), f'"{part}" and "{url}" cannot be used together', "remove one of them") for part in parts
        )
    return value or {}


BrokerField = Annotated[BrokerSpec, BeforeValidator(_broker, json_schema_input_type=str | BrokerSpec | None)]

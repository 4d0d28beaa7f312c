"""An address of an object store -> an open obstore store, with the credentials that the cloud's own tools would find.

s3://BUCKET/PATH  gs://BUCKET/PATH  az://CONTAINER/PATH  http(s)://HOST/PATH

obstore itself knows the clouds' environment variables and the tokens of their machines; what it does not know (AWS
profiles and single sign-on, Google workload identities, Azure logins) the clouds' libraries find, where installed.
"""

import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"(s3|gs|az|https?)://[^/]+", re.IGNORECASE)
SECRET = re.compile(r"(?<=://)[^/\s@]*@|\?[^\s)]*")  # a password before the host; the query of a signed URL
OWN = {  # variables with which obstore needs no library
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SKIP_SIGNATURE",
    ),
    "az": (
        *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
        *("AZURE_STORAGE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_SKIP_SIGNATURE"),
    ),
}


def remote(name: object) -> bool:
    """Whether a name is an address of an object store and no path."""
    return ADDRESS.match(str(name)) is not None


def spoken(text: str) -> str:
    """An address or message without passwords and signatures."""
    return SECRET.sub("", text)


def open_store(address: str, silence: float, whole: float) -> Any:
    """The store. `silence`: seconds that it may send nothing; `whole`: that an answer may take. ValueError: refused."""
    from obstore.exceptions import BaseError
    from obstore.store import HTTPStore, from_url

    options: Any = {
        "connect_timeout": timedelta(seconds=min(10.0, silence)),
        "read_timeout": timedelta(seconds=silence),
        "timeout": timedelta(seconds=whole),
        "allow_http": True,
    }
    retry: Any = {"max_retries": 0}  # `Bucket` does
    scheme = address.partition("://")[0].lower()
    if scheme.startswith("http") and ("?" in address or "#" in address):
        raise ValueError(f"{spoken(address)}: is signed for one object; name a folder, or use the cloud's own address")
    try:
        if scheme.startswith("http"):
            return HTTPStore.from_url(address, client_options=options, retry_config=retry)
        provider = credentials(scheme)
        return from_url(address, client_options=options, retry_config=retry, credential_provider=provider)
    except (BaseError, ValueError) as error:
        raise ValueError(f"{spoken(address)}: {spoken(str(error)).splitlines()[0]}") from None


def credentials(scheme: str, environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Any:
    """What the cloud's library finds, as a provider of obstore's; None: obstore shall look itself.

    ValueError where only a library that is not installed could read what is there.
    """
    if any(environment.get(name) for name in OWN.get(scheme, ())):
        return None
    find: dict[str, tuple[str, Callable[[], Any]]] = {
        "s3": ("boto3", _amazon),
        "gs": ("google.auth", _google),
        "az": ("azure.identity", _microsoft),
    }
    library, provider = find[scheme]
    if _installed(library):
        return provider()
    shared = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or (home or Path.home()) / ".aws" / "credentials")
    if scheme == "s3" and (environment.get("AWS_PROFILE") or shared.is_file()):
        raise ValueError("AWS profiles are read by boto3, which is not installed: pip install -e '.[cloud]'")
    return None


def _installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _amazon() -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.Session()
        return Boto3CredentialProvider(session) if session.get_credentials() is not None else None
    except BotoCoreError as error:
        raise ValueError(f"AWS credentials: {error}") from None


def _google() -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from obstore.auth.google import GoogleCredentialProvider

    scope = "https://www.googleapis.com/auth/devstorage.read_write"
    try:
        found, _ = google.auth.default(scopes=[scope])
    except DefaultCredentialsError:
        return None
    try:
        return GoogleCredentialProvider(found)
    except ImportError:
        raise ValueError("google-auth lacks `requests`: pip install -e '.[cloud]'") from None


def _microsoft() -> Any:
    from obstore.auth.azure import AzureCredentialProvider

    return AzureCredentialProvider()

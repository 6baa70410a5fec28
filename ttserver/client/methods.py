"""The methods of both clients, made of the table of calls: written once, typed for each.

`volume_get` of `Client` takes what `calls.volume_get` takes and gives a `Volume`; that of
`AsyncClient` gives an awaitable of one. Lists are iterators, or asynchronous iterators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ttserver.client import calls
from ttserver.client.call import Call, Listing

if TYPE_CHECKING:
    from ttserver.client.awaiting import AsyncClient
    from ttserver.client.blocking import Client

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """A method that asks for one thing.

    Args:
        make: makes its call.
    """

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        make = self._make
        if client is None:
            return make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.run(make(*args, **kwargs))

        return method


class Rows(Generic[P, T]):
    """A method that asks for a list, page by page as it is read.

    Args:
        make: makes its listing.
    """

    def __init__(self, make: Callable[P, Listing[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Listing[T]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        make = self._make
        if client is None:
            return make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.rows(make(*args, **kwargs))

        return method


class Methods:
    """All of them; what each does is said in `ttserver.client.calls`."""

    get = Method(calls.get)
    set = Method(calls.set_)
    getdel = Method(calls.getdel)
    delete = Method(calls.delete)
    exists = Method(calls.exists)
    mget = Method(calls.mget)
    mset = Method(calls.mset)
    append = Method(calls.append)
    strlen = Method(calls.strlen)
    incr = Method(calls.incr)
    scan = Rows(calls.scan)
    range = Method(calls.range_)
    dbsize = Method(calls.dbsize)

    ping = Method(calls.ping)
    info = Method(calls.info)
    waitfor = Method(calls.waitfor)

    customer_add = Method(calls.customer_add)
    customer_set = Method(calls.customer_set)
    customer_get = Method(calls.customer_get)
    customer_list = Rows(calls.customer_list)
    customer_del = Method(calls.customer_del)
    media_add = Method(calls.media_add)
    media_set = Method(calls.media_set)
    media_get = Method(calls.media_get)
    media_list = Rows(calls.media_list)
    media_del = Method(calls.media_del)
    repository_add = Method(calls.repository_add)
    repository_set = Method(calls.repository_set)
    repository_get = Method(calls.repository_get)
    repository_list = Rows(calls.repository_list)
    repository_del = Method(calls.repository_del)

    volume_add = Method(calls.volume_add)
    volume_check = Method(calls.volume_check)
    volume_set = Method(calls.volume_set)
    volume_get = Method(calls.volume_get)
    volume_list = Rows(calls.volume_list)
    volume_count = Method(calls.volume_count)
    volume_del = Method(calls.volume_del)
    volume_move = Method(calls.volume_move)
    volume_scanout = Method(calls.volume_scanout)
    volume_pickup = Method(calls.volume_pickup)
    volume_confirm = Method(calls.volume_confirm)
    volume_cancel = Method(calls.volume_cancel)
    volume_setdate = Method(calls.volume_setdate)
    volume_flag = Method(calls.volume_flag)
    volume_history = Rows(calls.volume_history)

    expire = Method(calls.expire)
    reconcile = Method(calls.reconcile)
    library_balance = Method(calls.library_balance)

    user_add = Method(calls.user_add)
    user_set = Method(calls.user_set)
    user_passwd = Method(calls.user_passwd)
    user_get = Method(calls.user_get)
    user_list = Method(calls.user_list)
    user_del = Method(calls.user_del)
    group_add = Method(calls.group_add)
    group_set = Method(calls.group_set)
    group_get = Method(calls.group_get)
    group_list = Method(calls.group_list)
    group_del = Method(calls.group_del)
    passwd = Method(calls.passwd)
    whoami = Method(calls.whoami)

"""Tables of classes, in a database in memory where the interpreter has SQLite; else their SQL."""

import importlib.util
from typing import List

from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[List["Order"]] = relationship(back_populates="user")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    user: Mapped[User] = relationship(back_populates="orders")


query = select(User.name).join(User.orders).where(Order.id > 0)
assert "JOIN orders" in str(query.compile(dialect=postgresql.dialect()))
assert async_sessionmaker() is not None
if importlib.util.find_spec("_sqlite3"):
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(name="Ä", orders=[Order()]))
        session.commit()
        assert session.scalars(query).all() == ["Ä"]

"""Operations over a whole fleet."""

-- Queues of sessions' own, and who has too much in it.
--
-- `own` has the sessions by the length of their queues, `own:classes:<name>` how many tasks of each class there are in one,
-- `own:ready:<class>:<name>` those tasks by key, `own:age:<class>:<name>` by priority and number: the last is stolen first.

-- What the other parts use of it.
local own_key, own_length, own_insert, own_remove, first_of, own_first, theft, is_any_above

do

function own_key(what, c, name)
  return P .. 'own:' .. what .. ':' .. int(c) .. ':' .. name
end

-- How many tasks are in the own queue of a session.
function own_length(name)
  return tonumber(call('ZSCORE', P .. 'own', name) or 0)
end

function own_insert(name, c, place, priority)
  T.own = T.own + 1
  call('HINCRBY', P .. 'own:classes:' .. name, int(c), 1)
  call('ZADD', own_key('ready', c, name), place[1], place[2])
  call('ZADD', own_key('age', c, name), priority, place[3])
  return tonumber(call('ZINCRBY', P .. 'own', 1, name))
end

function own_remove(name, c, place)
  if call('ZREM', own_key('ready', c, name), place[2]) == 0 then
    return
  end
  T.own = T.own - 1
  call('ZREM', own_key('age', c, name), place[3])
  if call('HINCRBY', P .. 'own:classes:' .. name, int(c), -1) <= 0 then
    call('HDEL', P .. 'own:classes:' .. name, int(c))
  end
  if tonumber(call('ZINCRBY', P .. 'own', -1, name)) <= 0 then
    call('ZREM', P .. 'own', name)
  end
end

-- The first of a sorted set of tasks that is not skipped, from either end: {score, member, name}.
function first_of(key, backwards, skip)
  local from, command = 0, backwards and 'ZREVRANGE' or 'ZRANGE'
  while true do
    local found = call(command, key, from, from + (from == 0 and 0 or 99), 'WITHSCORES')
    for nth = 1, #found, 2 do
      local name16 = sub(found[nth], -16)
      if not skip(name16) then
        return { tonumber(found[nth + 1]), found[nth], name16 }
      end
    end
    if #found == 0 then
      return nil
    end
    from = from + #found / 2
  end
end

-- The first task in the own queue of a session that it may do and does not skip.
function own_first(name, may_do, skip)
  local best
  for _, c in ipairs(call('HKEYS', P .. 'own:classes:' .. name)) do
    if may_do(tonumber(c)) then
      local first = first_of(own_key('ready', tonumber(c), name), false, function(name16)
        -- Somebody else may have had his hands in it.
        local rec = find_named(name16)
        return not rec or rec.state ~= READY or skip(name16)
      end)
      if first and (not best or before(first, best)) then
        best = first
      end
    end
  end
  return best
end

-- How many sessions with too much to do somebody looks at who has nothing to do.
local MOST_VICTIMS = 100

-- What an idle session steals: from the session with the longest queue above the bound that has something for it, of the
-- lowest priority, the newest. Of queues of the same length, the first by name. Answers with the task and from whom.
function theft(session, skip)
  local longest = call('ZREVRANGEBYSCORE', P .. 'own', '+inf', '(' .. int(C.steal_above), 'WITHSCORES', 'LIMIT', 0,
    MOST_VICTIMS)
  local victims = {}
  for nth = 1, #longest, 2 do
    victims[#victims + 1] = { longest[nth], tonumber(longest[nth + 1]) }
  end
  table.sort(victims, function(a, b) return a[2] > b[2] or a[2] == b[2] and a[1] < b[1] end)
  for _, victim in ipairs(victims) do
    local best
    if victim[1] ~= session.name then
      for _, c in ipairs(call('HKEYS', P .. 'own:classes:' .. victim[1])) do
        if may(Q.kinds[session.kind], tonumber(c)) then
          local last = first_of(own_key('age', tonumber(c), victim[1]), true, skip)
          if last and (not best or last[1] > best[1] or last[1] == best[1] and last[2] > best[2]) then
            best = last
          end
        end
      end
    end
    if best then
      return best[3], victim[1]
    end
  end
end

-- Whether there is a queue long enough to be stolen from.
function is_any_above()
  local longest = call('ZREVRANGE', P .. 'own', 0, 0, 'WITHSCORES')
  return longest[2] and tonumber(longest[2]) > C.steal_above
end

end

-- What becomes of a delivery: who holds it, how it fails, what a receipt gets, how it dies.

-- How the index of deadlines names the block of a position: so that names sort as numbers.
local function block_item(position)
  return string.format('%016d', math.floor(position / BLOCK))
end

-- Something of a block is due at `at`. The index knows already if the block was the last one armed, for no later.
local function arm_block(group, nth, at)
  if nth ~= group.armed_block or at < group.armed_at then
    call('ZADD', group.index, 'LT', at, block_item(nth * BLOCK))
    group.armed_block, group.armed_at = nth, at
  end
end

local function disarm(group, position)
  call('ZREM', group.index, block_item(position))
  group.armed_block = nil
end

local function arm_cell(topic, group, cell, at)
  if cell.letter then
    call('ZADD', group.index, 'LT', at, 'r' .. int(cell.position))
  else
    arm_block(group, math.floor(cell.position / BLOCK), at)
  end
  group.due = at_most(group.due, at)
  arm_topic(topic, at)
end

-- Moves the floor over what is settled.
local function advance(group)
  local byte = string.byte
  group.floor = at_least(group.floor, group.first - 1)
  while group.floor + 1 < group.cursor do
    local position = group.floor + 1
    local gap = group.gaps[1]
    if gap and position >= gap[1] then
      group.floor = at_least(group.floor, gap[2])
      table.remove(group.gaps, 1)
    else
      local page, nth, offset = page_of(group, position)
      local past = at_most(at_most(group.cursor, (nth + 1) * PAGE), gap and gap[1] or NEVER)
      while position < past and byte(page, offset + 1) >= ACKED do
        position, offset = position + 1, offset + CELL_BYTES
      end
      group.floor = position - 1
      if position % BLOCK == 0 then
        disarm(group, position - 1)
      end
      if position < past then
        return
      end
    end
  end
end

-- How many events a group has never handed out.
local function backlog(topic, group)
  return at_least(topic.next - at_least(group.cursor, topic.first), 0)
end

-- Notes that a consumer holds an event. One that has left stays known by name as long as it holds something.
local function hold(group, consumer, name, suspect)
  group.in_flight = group.in_flight + 1
  local member = find_member(group, consumer) or {
    name = name, channel = '', timeout = C.ack_timeout, prefetch = 0, in_flight = 0, suspects = 0, gone = true, done = 0,
    wait = false, answers = {},
  }
  member.in_flight = member.in_flight + 1
  member.suspects = member.suspects + (suspect and 1 or 0)
  save_member(group, consumer, member)
end

local function release(group, consumer, suspect)
  group.in_flight = at_least(group.in_flight - 1, 0)
  local member = find_member(group, consumer)
  if member then
    member.in_flight = at_least(member.in_flight - 1, 0)
    member.suspects = at_least(member.suspects - (suspect and 1 or 0), 0)
    save_member(group, consumer, member)
  end
end

local function is_member(group, consumer)
  local member = find_member(group, consumer)
  return member and not member.gone
end

-- Takes a cell out of whatever it counts in, so that its state can change.
local function unindex(group, cell)
  if cell.state == IN_FLIGHT then
    release(group, cell.consumer, cell.suspect)
  elseif cell.state == DELAYED then
    group.returning = group.returning - 1
  elseif cell.state == READY then
    local index = cell.suspect and 'suspects' or 'ready'
    call('ZREM', P .. index .. ':' .. int(group.incarnation), int(cell.position))
    group[index] = group[index] - 1
    group.returning = group.returning - 1
  end
end

local function make_ready(group, cell, suspect)
  cell.state, cell.suspect = READY, suspect
  local index = suspect and 'suspects' or 'ready'
  call('ZADD', P .. index .. ':' .. int(group.incarnation), cell.position, int(cell.position))
  group[index] = group[index] + 1
  group.returning = group.returning + 1
  save_cell(group, cell)
end

-- Forgets that the current delivery timed out, and answers who handled it.
local function forgive(group, cell)
  if not cell.extra then
    return nil
  end
  local extra = find_extra(group, cell)
  local last = extra.h[#extra.h]
  if not last or last[1] ~= cell.delivery or not is_suspicious(last) then
    return nil
  end
  table.remove(extra.h)
  save_extra(group, cell, extra)
  local before = extra.h[#extra.h]
  cell.suspect = before ~= nil and before[1] > cell.born and is_suspicious(before)
  return last[3]
end

local function handler(group, consumer)
  local member = find_member(group, consumer)
  return member and member.name or 'consumer-' .. int(consumer)
end

-- Notes that the current delivery failed. A settle that came late, but in time, replaces the time-out.
local function fail(group, cell, name, at, kind, reason, retry_at)
  name = forgive(group, cell) or name
  local extra = find_extra(group, cell)
  table.insert(extra.h, { cell.delivery, cell.consumer, name, cell.since, at, kind, reason or false, retry_at or false, false })
  save_extra(group, cell, extra)
end

-- After a cell was settled: one that came back from the dead moves to where it was, and the floor moves.
local function after_settling(topic, group, cell)
  if cell.letter then
    if cell.position >= group.first then
      fill(group, cell.position, 1, cell.letter[1])
      group.letters[cell.position] = false
      remove(group, 'r' .. int(cell.position))
      group.revived = group.revived - 1
    else
      arm_cell(topic, group, cell, now + C.ack_timeout)
    end
  end
  advance(group)
end

-- The delivery that counts, if one does.
local function current(cell)
  return not is_settled(cell) and cell.delivery > cell.born and cell.delivery or false
end

-- The answer that a receipt got before, if it has settled and `verb` says the same; nil if it is that of the current
-- delivery. Otherwise an error: {'stale', current}, {'already', outcome}, {'forgotten', oldest}.
local function answer_before(group, position, consumer, delivery, verb, said)
  local cell = find_cell(group, position)
  if not cell then
    if position >= group.cursor then
      return { 'stale', false }
    end
    return { 'forgotten', at_least(group.first, position + 1) }
  end
  if cell.state == LOST then
    return { 'forgotten', position + 1 }
  end
  local extra = cell.extra and find_extra(group, cell)
  for nth = extra and #extra.h or 0, 1, -1 do
    local failure = extra.h[nth]
    if failure[1] == delivery then
      if failure[2] ~= consumer then
        return { 'stale', current(cell) }
      end
      local nacked, refused = failure[6] == 'nacked', failure[6] == 'refused'
      local before = (nacked or refused) and failure[9] and { 'dead', failure[9] } or
        nacked and failure[8] and { 'retrying', failure[8] }
      if before then
        local alike = nacked and verb == 'nack' or refused and verb == 'dead'
        return alike and before or { 'already', before[1] }
      end
      -- The deadline passed. While the event is not handed out again, nor dead, better late than twice.
      if failure[9] or cell.born >= delivery then
        return { 'stale', current(cell) }
      end
      break
    end
  end
  if cell.delivery ~= delivery or cell.consumer ~= consumer then
    return { 'stale', current(cell) }
  end
  if cell.state == ACKED then
    return verb == 'ack' and { 'acked' } or { 'already', 'acked' }
  elseif cell.state == COMMITTED then
    return verb == 'commit' and extra.said == said and { 'committed', extra.out } or { 'already', 'committed' }
  elseif cell.state == DEAD then
    return { 'already', 'dead' }
  end
  return nil, cell
end

-- Some events are gone that the group has not seen.
local function lose(topic, group, events, resumes_at)
  journal {
    component = 'bus', operation = 'data_loss', subject = topic.name, severity = 'HIGH',
    params = { 'group', group.name, 'events', events, 'resumes_at', resumes_at },
  }
end

-- The event of a cell: {id, text}, or nil if it is gone.
local function event_of(topic, cell)
  if cell.letter then
    return { cell.letter[2], cell.letter[3] }
  end
  local entry = entry_at(topic, cell.position)
  if not entry then
    return nil
  end
  local nth = cell.position - id_position(entry)
  return { event_id(entry, nth), entry[2][first_text(entry) + nth * 2] }
end

-- The event of a cell is gone: so is the cell.
local function give_up_lost(topic, group, cell)
  unindex(group, cell)
  cell.state, cell.since = LOST, now
  save_cell(group, cell)
  after_settling(topic, group, cell)
  lose(topic, group, 1, group.floor + 1)
end

-- Makes a dead letter of an event whose current delivery ends for good; answers with its number.
local function bury(topic, group, cell, at, kind, reason)
  local event = event_of(topic, cell)
  if not event then
    give_up_lost(topic, group, cell)
    return nil
  end
  M.letter, M.changed = M.letter + 1, true
  local id, name = M.letter, handler(group, cell.consumer)
  unindex(group, cell)
  fail(group, cell, name, at, kind, reason)
  local extra = find_extra(group, cell)
  extra.h[#extra.h][9] = id
  save_extra(group, cell, extra)
  cell.state, cell.since = DEAD, at
  save_cell(group, cell)
  after_settling(topic, group, cell)
  local lived, attributes = 0, cjson.decode(string.match(event[2], '^[^\n]*'))
  for _, failure in ipairs(extra.h) do
    lived = lived + (failure[1] > cell.born and 1 or 0)
  end
  local weight = #event[2] + EVENT_BYTES
  topic.dead = topic.dead + weight
  call('ZADD', P .. 'letters', id, int(id))
  call('HSET', P .. 'letter', int(id), cmsgpack.pack({
    topic.name, group.name, group.incarnation, at, cell.position, attributes.type, attributes.id,
    attributes.traceparent or '', weight, lived, cell.delivery, cell.born, extra.h,
  }))
  call('HSET', P .. 'letter:events', int(id), cmsgpack.pack(event))
  journal {
    component = 'bus', operation = 'dead_letter', subject = topic.name, severity = 'HIGH', trace = attributes.traceparent,
    params = {
      'id', id, 'group', group.name, 'event', attributes.id, 'position', cell.position, 'attempts', lived,
    },
  }
  return id
end

-- Groups: what each has done with the events of its topic.
--
-- `g:<incarnation>` is a hash: `state`; `m<consumer>` a member; `p<n>` a page of 32 cells, one for each position that was
-- handed out; `x<position>` what a cell has no room for; `r<position>` a dead letter that came back, with its event.
-- `ready:`, `suspects:` and `due:` are indices of cells, `w:` is the queue of members that wait.

local GROUP = '>I7I7I7I7I4I4I4I4I4I4I7I7I4I4BBHc0Hc0'
-- timeout, prefetch, in flight, suspects, gone, done, ticket and size of the wait (or 0), name, channel; then answers
local MEMBER = '>I7I4I4I2BI7I7I4Hc0Hc0'

-- state, flags, consumer, delivery, born, attempts, since, at
local CELL = '>BBI7I4I4I2I7I7'
local CELL_BYTES = 33
local PAGE = 32
local IN_FLIGHT, DELAYED, READY, ACKED, COMMITTED, DEAD, LOST = 1, 2, 3, 4, 5, 6, 7
local INFO = '>I7I4I2I7'

local function blank()
  return string.rep('\0', PAGE * CELL_BYTES)
end

local function unpack_group(incarnation, packed)
  local group = { incarnation = incarnation, key = P .. 'g:' .. int(incarnation), packed = packed }
  local expired, gaps
  group.cursor, group.floor, group.first, group.lost, group.deliveries, group.members, group.in_flight, group.returning,
    group.ready, group.suspects, group.idle, group.due, group.waiting, group.revived, expired, gaps, group.name, group.topic =
    struct.unpack(GROUP, packed)
  group.expired = expired == 1
  group.gaps = gaps > 0 and cmsgpack.unpack(call('HGET', group.key, 'gaps')) or {}
  return group
end

local function pack_group(group)
  return struct.pack(GROUP, group.cursor, group.floor, group.first, group.lost, group.deliveries, group.members,
    group.in_flight, group.returning, group.ready, group.suspects, group.idle, group.due, group.waiting, group.revived,
    group.expired and 1 or 0, at_most(#group.gaps, 255), #group.name, group.name, #group.topic, group.topic)
end

local function unpack_member(packed)
  local member, gone, ticket, max, place = {}, nil, nil, nil, nil
  member.timeout, member.prefetch, member.in_flight, member.suspects, gone, member.done, ticket, max, member.name,
    member.channel, place = struct.unpack(MEMBER, packed)
  member.gone, member.wait = gone == 1, ticket > 0 and { ticket, max }
  member.answers = place <= #packed and cmsgpack.unpack(string.sub(packed, place)) or {}
  return member
end

local function pack_member(member)
  local wait = member.wait or { 0, 0 }
  local packed = struct.pack(MEMBER, member.timeout, member.prefetch, member.in_flight, member.suspects,
    member.gone and 1 or 0, member.done, wait[1], wait[2], #member.name, member.name, #member.channel, member.channel)
  return #member.answers > 0 and packed .. cmsgpack.pack(member.answers) or packed
end

-- A group with a member and the pages of some positions, all read at once.
local function find_group(incarnation, consumer, from, to)
  local group = groups[incarnation]
  if group ~= nil then
    return group
  end
  local fields, first, last = { 'state', 'm' .. int(consumer or 0) }, 1, 0
  if from then
    first = math.floor(from / PAGE)
    last = at_most(math.floor((to or from) / PAGE), first + 20)
    for page = first, last do
      fields[#fields + 1] = 'p' .. int(page)
    end
  end
  local values = call('HMGET', P .. 'g:' .. int(incarnation), unpack(fields))
  if not values[1] then
    groups[incarnation] = false
    return false
  end
  group = unpack_group(incarnation, values[1])
  group.recorded = group.floor
  group.pages, group.loaded_members, group.extras, group.letters, group.changed, group.removed = {}, {}, {}, {}, {}, {}
  if consumer then
    group.loaded_members[consumer] = values[2] and unpack_member(values[2]) or false
  end
  for page = first, last do
    group.pages[page] = values[3 + page - first] or blank()
  end
  groups[incarnation] = group
  return group
end

local function change(group, field, value)
  group.changed[field], group.removed[field] = value, nil
end

local function remove(group, field)
  group.changed[field], group.removed[field] = nil, true
end

local function find_member(group, consumer)
  local member = group.loaded_members[consumer]
  if member == nil then
    local packed = call('HGET', group.key, 'm' .. int(consumer))
    member = packed and unpack_member(packed) or false
    group.loaded_members[consumer] = member
  end
  return member
end

local function save_member(group, consumer, member)
  if member.gone and member.in_flight <= 0 then
    group.loaded_members[consumer] = false
    remove(group, 'm' .. int(consumer))
  else
    group.loaded_members[consumer] = member
    change(group, 'm' .. int(consumer), member)
  end
end

local function page_of(group, position)
  local nth = math.floor(position / PAGE)
  local page = group.pages[nth]
  if not page then
    page = call('HGET', group.key, 'p' .. int(nth)) or blank()
    group.pages[nth] = page
  end
  return page, nth, (position % PAGE) * CELL_BYTES
end

-- Writes one cell into `count` positions from `from` on.
local function fill(group, from, count, raw)
  while count > 0 do
    local page, nth, offset = page_of(group, from)
    local n = at_most(count, PAGE - from % PAGE)
    page = string.sub(page, 1, offset) .. string.rep(raw, n) .. string.sub(page, offset + n * CELL_BYTES + 1)
    group.pages[nth] = page
    change(group, 'p' .. int(nth), page)
    from, count = from + n, count - n
  end
end

local function raw_cell(group, position)
  local page, _, offset = page_of(group, position)
  return string.sub(page, offset + 1, offset + CELL_BYTES)
end

-- A dead letter that came back: its cell and its event.
local function find_letter(group, position)
  if group.revived == 0 then
    return false
  end
  local letter = group.letters[position]
  if letter == nil then
    local packed = call('HGET', group.key, 'r' .. int(position))
    letter = packed and cmsgpack.unpack(packed) or false
    group.letters[position] = letter
  end
  return letter
end

-- The way of one event through the group, or nil where it was never handed out or is forgotten.
local function find_cell(group, position)
  local letter = find_letter(group, position)
  if not letter and (position < group.first or position >= group.cursor) then
    return nil
  end
  local raw = letter and letter[1] or raw_cell(group, position)
  local cell = { position = position, letter = letter }
  cell.state, cell.flags, cell.consumer, cell.delivery, cell.born, cell.attempts, cell.since, cell.at =
    struct.unpack(CELL, raw)
  if cell.state == 0 then
    return nil
  end
  cell.extra, cell.suspect = cell.flags >= 2, cell.flags % 2 == 1
  return cell
end

local function save_cell(group, cell)
  local flags = (cell.suspect and 1 or 0) + (cell.extra and 2 or 0)
  local raw = struct.pack(CELL, cell.state, flags, cell.consumer, cell.delivery, cell.born, cell.attempts, cell.since,
    cell.at)
  if cell.letter then
    cell.letter[1] = raw
    group.letters[cell.position] = cell.letter
    change(group, 'r' .. int(cell.position), cell.letter)
  else
    fill(group, cell.position, 1, raw)
  end
end

-- What a cell has no room for: the history `h`, what a commit `said` and answered (`out`), the dead letter `id`.
-- A failure is {delivery, consumer, name, started, ended, kind, reason, retry_at, death}.
local function find_extra(group, cell)
  local extra = group.extras[cell.position]
  if not extra then
    local packed = cell.extra and call('HGET', group.key, 'x' .. int(cell.position))
    extra = packed and cmsgpack.unpack(packed) or { h = {} }
    group.extras[cell.position] = extra
  end
  return extra
end

local function save_extra(group, cell, extra)
  cell.extra = true
  group.extras[cell.position] = extra
  change(group, 'x' .. int(cell.position), extra)
end

local function is_settled(cell)
  return cell.state >= ACKED
end

local function is_suspicious(failure)
  return failure[6] == 'timed_out' or failure[6] == 'lost'
end

-- How the index of deadlines names the page of a position: so that names sort as numbers.
local function page_item(position)
  return string.format('%016.0f', math.floor(position / PAGE))
end

local function arm_cell(topic, group, cell, at)
  local item = cell.letter and 'r' .. int(cell.position) or page_item(cell.position)
  call('ZADD', P .. 'due:' .. int(group.incarnation), 'LT', at, item)
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
      if position % PAGE == 0 then
        call('ZREM', P .. 'due:' .. int(group.incarnation), page_item(position - 1))
      end
      if position < past then
        return
      end
    end
  end
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
  group.in_flight = group.in_flight - 1
  local member = find_member(group, consumer)
  if member then
    member.in_flight = member.in_flight - 1
    member.suspects = member.suspects - (suspect and 1 or 0)
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

-- The event of a cell: {e, d, t}, or nil if it is gone.
local function event_of(topic, cell)
  if cell.letter then
    return { cell.letter[2], cell.letter[3], cell.letter[4] }
  end
  local entry = entry_at(topic, cell.position)
  return entry and { entry[2][2], entry[2][4], entry[2][6] }
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
  local lived, attributes = 0, cjson.decode(event[1])
  for _, failure in ipairs(extra.h) do
    lived = lived + (failure[1] > cell.born and 1 or 0)
  end
  local weight = #event[1] + #event[2] + EVENT_BYTES
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

-- Whether a member would get something now.
local function has_offer(topic, group, member)
  return member.in_flight < member.prefetch and
    (group.ready > 0 or group.cursor < topic.next or group.suspects > 0 and member.suspects == 0)
end

-- The position of the next event that comes back to a member, or nil.
local function next_returning(group, member)
  local ready = group.ready > 0 and call('ZRANGE', P .. 'ready:' .. int(group.incarnation), 0, 0)[1]
  local suspect = group.suspects > 0 and member.suspects == 0 and
    call('ZRANGE', P .. 'suspects:' .. int(group.incarnation), 0, 0)[1]
  if ready and suspect then
    return at_most(tonumber(ready), tonumber(suspect))
  end
  return tonumber(ready or suspect or nil)
end

-- Events of a topic from a position on, three parts for each, and where they begin: what this step has written itself, or
-- what the stream has.
local function fresh_events(topic, from, limit)
  local written = topic.written
  if written and from >= written.from then
    local entries = {}
    for nth = 1, at_most(limit, topic.next - from) do
      local base = written[from - written.from + nth]
      local place = nth * 3
      entries[place - 2], entries[place - 1], entries[place] = written.list[base + 4], written.list[base + 5], written.at
    end
    return entries, from
  end
  local entries = entries_from(P .. 'e:' .. topic.name, from, at_most(limit, topic.next - from), average_of(topic))
  local count, parts = #entries, {}
  if count == 0 then
    return parts, topic.next
  end
  if id_position(entries[count]) ~= id_position(entries[1]) + count - 1 then
    -- Somebody has deleted some: up to the first gap.
    local first = id_position(entries[1])
    count = 1
    while id_position(entries[count + 1]) == first + count do
      count = count + 1
    end
  end
  for nth = 1, count do
    local fields, place = entries[nth][2], nth * 3
    parts[place - 2], parts[place - 1], parts[place] = fields[2], fields[4], fields[6]
  end
  return parts, id_position(entries[1])
end

-- Fresh events for a member, as many as there are in a row.
local function take_fresh(topic, group, consumer, member, max, out, ranges)
  local from = group.cursor
  local parts, found = fresh_events(topic, from, max)
  if found > from then
    table.insert(group.gaps, { from, found - 1 })
    group.cursor = found
    advance(group)
    lose(topic, group, found - from, found)
    if topic.first < found then
      measure(topic)
    end
    return 0
  end
  local count = #parts / 3
  local deadline = now + member.timeout
  fill(group, from, count, struct.pack(CELL, IN_FLIGHT, 0, consumer, 1, 0, 1, now, deadline))
  out[#out + 1] = { 'run', from, deadline, parts }
  ranges[#ranges + 1], ranges[#ranges + 2] = from, count
  group.cursor = from + count
  group.in_flight = group.in_flight + count
  member.in_flight = member.in_flight + count
  for nth = math.floor(from / PAGE), math.floor((from + count - 1) / PAGE) do
    arm_cell(topic, group, { position = nth * PAGE }, deadline)
  end
  return count
end

-- Hands an event out again.
local function take_returning(topic, group, consumer, member, position, out, ranges)
  local cell = find_cell(group, position)
  local event = cell and event_of(topic, cell)
  if not event then
    if cell then
      give_up_lost(topic, group, cell)
    end
    return 0
  end
  unindex(group, cell)
  cell.delivery, cell.attempts, cell.consumer = cell.delivery + 1, cell.attempts + 1, consumer
  cell.state, cell.since, cell.at = IN_FLIGHT, now, now + member.timeout
  save_cell(group, cell)
  hold(group, consumer, member.name, cell.suspect)
  arm_cell(topic, group, cell, cell.at)
  out[#out + 1] =
    { 'one', struct.pack(INFO, position, cell.delivery, cell.attempts, cell.at), event[1], event[2], event[3] }
  ranges[#ranges + 1], ranges[#ranges + 2] = position, 1
  return 1
end

-- Hands out at most `max` events, as {'run', first position, deadline, {e, d, t, …}} for those that were never handed out, and
-- {'one', INFO, e, d, t} for others. Remembers it under the ticket.
local function hand_out(topic, group, consumer, member, max, ticket)
  local out, ranges, taken = {}, {}, 0
  while taken < max and has_offer(topic, group, member) do
    local position = next_returning(group, member)
    if position then
      taken = taken + take_returning(topic, group, consumer, member, position, out, ranges)
    else
      local room = at_most(max - taken, member.prefetch - member.in_flight)
      local fresh = take_fresh(topic, group, consumer, member, room, out, ranges)
      taken = taken + fresh
      if fresh > 0 and fresh < room then
        break
      end
    end
  end
  if taken > 0 then
    for nth = #member.answers, 1, -1 do
      if member.answers[nth][1] <= member.done then
        table.remove(member.answers, nth)
      end
    end
    table.insert(member.answers, { ticket, ranges })
    save_member(group, consumer, member)
  end
  return out
end

-- Notes in the topic which member of a group waits longest, if any does.
local function list_waiting(topic, group, head)
  for nth, listed in ipairs(topic.waiting) do
    if listed[1] == group.incarnation then
      if head then
        listed[2] = head
      else
        table.remove(topic.waiting, nth)
      end
      return
    end
  end
  if head then
    table.insert(topic.waiting, { group.incarnation, head })
  end
end

local function start_waiting(topic, group, consumer)
  if call('ZADD', P .. 'w:' .. int(group.incarnation), 'NX', now, int(consumer)) == 1 then
    group.waiting = group.waiting + 1
    if group.waiting == 1 then
      list_waiting(topic, group, consumer)
    end
  end
end

local function stop_waiting(topic, group, consumer, member)
  if not member.wait then
    return
  end
  member.wait = false
  save_member(group, consumer, member)
  local queue = P .. 'w:' .. int(group.incarnation)
  if call('ZREM', queue, int(consumer)) == 1 then
    group.waiting = at_least(group.waiting - 1, 0)
  end
  if group.waiting == 0 then
    list_waiting(topic, group)
  else
    local head = call('ZRANGE', queue, 0, 0)[1]
    group.waiting = head and group.waiting or 0
    list_waiting(topic, group, head and tonumber(head))
  end
end

-- Gives back what was handed out under a ticket to a caller that is gone: without an attempt.
local function cancel(group, consumer, member, ticket)
  for nth = #member.answers, 1, -1 do
    local answer = member.answers[nth]
    if answer[1] == ticket then
      table.remove(member.answers, nth)
      for place = 1, #answer[2], 2 do
        for position = answer[2][place], answer[2][place] + answer[2][place + 1] - 1 do
          local cell = find_cell(group, position)
          if cell and cell.state == IN_FLIGHT and cell.consumer == consumer then
            unindex(group, cell)
            cell.attempts, cell.consumer = cell.attempts - 1, 0
            make_ready(group, cell, cell.suspect)
          end
        end
      end
    end
  end
  member.done = at_least(member.done, ticket)
  save_member(group, consumer, member)
end

-- Gives members that wait what there is for them, the longest waiter first; `head`, where it is known.
local function serve(topic, group, head)
  local skipped = 0
  while group.waiting > 0 and (group.ready > 0 or group.suspects > 0 or group.cursor < topic.next) do
    local queue = { head }
    if not head then
      queue = call('ZRANGE', P .. 'w:' .. int(group.incarnation), skipped, skipped + 9)
    end
    head = nil
    if #queue == 0 then
      return
    end
    for _, text in ipairs(queue) do
      local consumer = tonumber(text)
      local member = find_member(group, consumer)
      if not member or not member.wait then
        call('ZREM', P .. 'w:' .. int(group.incarnation), int(consumer))
        group.waiting = group.waiting - 1
      elseif has_offer(topic, group, member) then
        local ticket, max = member.wait[1], member.wait[2]
        local out = hand_out(topic, group, consumer, member, max, ticket)
        if #out > 0 then
          stop_waiting(topic, group, consumer, member)
          local bytes = 0
          for _, part in ipairs(out) do
            for _, text in ipairs(part[1] == 'run' and part[4] or part) do
              bytes = bytes + #text
            end
          end
          -- Whoever is told of much comes and gets it. Where nobody listens, nobody has it.
          local listens = push(member.channel, { 'delivered', consumer, ticket, bytes <= 65536 and cmsgpack.pack(out) or false })
          if not listens then
            cancel(group, consumer, member, ticket)
          end
        else
          skipped = skipped + 1
        end
      else
        skipped = skipped + 1
      end
    end
  end
end

-- Ends a subscription. Its deliveries stay until they end.
local function leave(topic, group, consumer, member)
  stop_waiting(topic, group, consumer, member)
  member.gone = true
  call('SREM', P .. 'pc:' .. string.match(member.channel .. ':', '^[^:]*'), int(group.incarnation) .. ' ' .. int(consumer))
  save_member(group, consumer, member)
  group.members = group.members - 1
  if group.members <= 0 then
    group.members, group.idle = 0, now
    arm_topic(topic, now + C.group_expiry)
  end
end

-- Ends what is due.
local function expire(topic, group)
  local index = P .. 'due:' .. int(group.incarnation)
  local served = false
  while budget > 0 do
    local items = call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 200)
    if #items == 0 then
      break
    end
    local cells, later = {}, {}
    -- At one point in time, what was due comes back in the order of positions: so all of it is collected first.
    for _, item in ipairs(items) do
      later[item] = NEVER
      local positions = {}
      if string.sub(item, 1, 1) == 'r' then
        positions[1] = tonumber(string.sub(item, 2))
      else
        local first = tonumber(item) * PAGE
        local page = page_of(group, first)
        for nth = 0, PAGE - 1 do
          local state = string.byte(page, nth * CELL_BYTES + 1)
          if state == IN_FLIGHT or state == DELAYED then
            positions[#positions + 1] = first + nth
          end
        end
      end
      for _, position in ipairs(positions) do
        local cell = find_cell(group, position)
        local is_letter = string.sub(item, 1, 1) == 'r'
        if cell and (cell.letter ~= false) == is_letter then
          if cell.state == IN_FLIGHT or cell.state == DELAYED then
            if cell.at <= now then
              cell.item = item
              cells[#cells + 1] = cell
            else
              later[item] = at_most(later[item], cell.at)
            end
          elseif is_letter and is_settled(cell) then
            if cell.since + C.ack_timeout <= now then
              group.letters[position] = false
              remove(group, 'r' .. int(position))
              remove(group, 'x' .. int(position))
              group.revived = group.revived - 1
            else
              later[item] = at_most(later[item], cell.since + C.ack_timeout)
            end
          end
        end
      end
    end
    table.sort(cells, function(a, b) return a.at < b.at or a.at == b.at and a.position < b.position end)
    for nth = #cells, budget + 1, -1 do
      later[cells[nth].item], cells[nth] = cells[nth].at, nil
    end
    for item, at in pairs(later) do
      if at == NEVER then
        call('ZREM', index, item)
      else
        call('ZADD', index, at, item)
      end
    end
    for _, cell in ipairs(cells) do
      budget = budget - 1
      served = true
      if cell.state == DELAYED then
        unindex(group, cell)
        make_ready(group, cell, false)
      else
        local kind = is_member(group, cell.consumer) and 'timed_out' or 'lost'
        if cell.attempts >= group.deliveries then
          bury(topic, group, cell, cell.at, kind)
        else
          local name = handler(group, cell.consumer)
          unindex(group, cell)
          fail(group, cell, name, cell.at, kind)
          make_ready(group, cell, true)
        end
      end
    end
  end
  local next_due = call('ZRANGE', index, 0, 0, 'WITHSCORES')
  group.due = tonumber(next_due[2] or NEVER)
  if served then
    serve(topic, group)
  end
end

-- Forgets what the topic has forgotten: settles that nobody repeats any more, and, of a group that has expired, events
-- that it will never see.
local function forget_before(topic, group)
  local oldest, first = topic.first, group.first
  while group.first < oldest do
    local start = math.floor(group.first / PAGE) * PAGE
    local past = at_most(start + PAGE, oldest)
    if group.expired and group.first >= group.cursor then
      group.lost = group.lost + oldest - group.first
      group.first = oldest
    elseif group.expired then
      past = at_most(past, group.cursor)
      for position = group.first, past - 1 do
        local letter = find_letter(group, position)
        local cell = not letter and find_cell(group, position)
        if cell and not is_settled(cell) then
          unindex(group, cell)
          group.lost = group.lost + 1
        end
        if cell and cell.extra then
          remove(group, 'x' .. int(position))
        end
      end
      fill(group, group.first, past - group.first, string.rep('\0', CELL_BYTES))
      group.first = past
      budget = budget - 1
    else
      local page = page_of(group, start)
      if past < start + PAGE or past > group.floor + 1 or budget <= 0 then
        break
      end
      local forgettable = true
      if oldest - group.first <= C.settles then
        for nth = 0, PAGE - 1 do
          local since = struct.unpack('>I7', string.sub(page, nth * CELL_BYTES + 20, nth * CELL_BYTES + 26))
          forgettable = forgettable and since + C.ack_timeout <= now
        end
      end
      if not forgettable then
        break
      end
      for nth = 0, PAGE - 1 do
        if string.byte(page, nth * CELL_BYTES + 2) >= 2 and not find_letter(group, start + nth) then
          remove(group, 'x' .. int(start + nth))
        end
      end
      group.first = past
      budget = budget - 1
    end
    if group.first >= start + PAGE then
      group.pages[start / PAGE] = blank()
      remove(group, 'p' .. int(start / PAGE))
      call('ZREM', P .. 'due:' .. int(group.incarnation), page_item(start))
    end
  end
  if group.first > first then
    group.cursor = at_least(group.cursor, group.first)
    advance(group)
  end
end

-- Lets a group that had expired hold the floor again, and says what it has missed meanwhile.
local function return_group(topic, group)
  if group.expired then
    forget_before(topic, group)
    group.expired = false
    if group.lost > 0 then
      lose(topic, group, group.lost, topic.first)
      group.lost = 0
    end
  end
end

-- Groups: what each has done with the events of its topic.
--
-- `g:<incarnation>` is a hash: `state`; `queue`, the members that wait, the longest first; `grant`, see below; `m<consumer>` a
-- member; `p<n>` a page of 8 cells, one for each position that was handed out; `x<position>` what a cell has no room for;
-- `r<position>` a dead letter that came back, with its event. `ready:`, `suspects:` and `due:` are indices of cells.

local GROUP = '>I7I7I7I7I4I4I4I4I4I4I7I7I4BBHc0Hc0'
-- timeout, prefetch, in flight, suspects, gone, done, ticket and size of the wait (or 0), name, channel; then answers
local MEMBER = '>I7I4I4I2BI7I7I4Hc0Hc0'

-- state, flags, consumer, delivery, born, attempts, since, at
local CELL = '>BBI7I4I4I2I7I7'
local CELL_BYTES = 33
local PAGE = 8
-- The index of deadlines knows blocks of positions.
local BLOCK = 64
local IN_FLIGHT, DELAYED, READY, ACKED, COMMITTED, DEAD, LOST = 1, 2, 3, 4, 5, 6, 7

-- A page of which nothing was handed out.
local BLANK = ('\0'):rep(PAGE * CELL_BYTES)

-- The queue of members that wait: seven bytes each, the longest waiter first.
local QUEUED = '>I7'
local QUEUED_BYTES = 7

local function unpack_group(incarnation, packed)
  local cursor, floor, first, lost, deliveries, members, in_flight, returning, ready, suspects, idle, due, revived, expired,
    gap_count, name, topic = struct.unpack(GROUP, packed)
  return {
    incarnation = incarnation, key = P .. 'g:' .. int(incarnation), index = P .. 'due:' .. int(incarnation),
    packed = packed, cursor = cursor, floor = floor, first = first, lost = lost, deliveries = deliveries,
    members = members, in_flight = in_flight, returning = returning, ready = ready, suspects = suspects, idle = idle,
    due = due, revived = revived, expired = expired == 1, gap_count = gap_count, name = name, topic = topic,
    known_members = {},
  }
end

local function pack_group(group)
  group.gap_count = at_most(#group.gaps, 255)
  return struct.pack(GROUP, group.cursor, group.floor, group.first, group.lost, group.deliveries, group.members,
    group.in_flight, group.returning, group.ready, group.suspects, group.idle, group.due, group.revived,
    group.expired and 1 or 0, group.gap_count, #group.name, group.name, #group.topic, group.topic)
end

local function unpack_member(packed)
  local timeout, prefetch, in_flight, suspects, gone, done, ticket, max, name, channel, place =
    struct.unpack(MEMBER, packed)
  return {
    timeout = timeout, prefetch = prefetch, in_flight = in_flight, suspects = suspects, gone = gone == 1, done = done,
    wait = ticket > 0 and { ticket, max }, name = name, channel = channel, packed = packed,
    answers = place <= #packed and cmsgpack.unpack(string.sub(packed, place)) or {},
  }
end

local function pack_member(member)
  local wait = member.wait
  member.packed = struct.pack(MEMBER, member.timeout, member.prefetch, member.in_flight, member.suspects,
    member.gone and 1 or 0, member.done, wait and wait[1] or 0, wait and wait[2] or 0, #member.name, member.name,
    #member.channel, member.channel)
  if #member.answers > 0 then
    member.packed = member.packed .. cmsgpack.pack(member.answers)
  end
  return member.packed
end

-- What a step learns and changes of a group, on top of its state: `changed` are the fields to write, or false to delete.
local function open_group(group, queue)
  group.queue, group.pages, group.loaded_members, group.changed = queue, {}, {}, {}
  if not group.extras or next(group.extras) or next(group.letters) then
    group.extras, group.letters = {}, {}
  end
  groups[group.incarnation] = group
  return group
end

local function load_member(group, consumer, packed)
  local member = packed and group.known_members[consumer]
  if packed and not (member and member.packed == packed) then
    member = unpack_member(packed)
    group.known_members[consumer], remembered = member, remembered + 1
  end
  group.loaded_members[consumer] = member or false
  return member or false
end

-- What was handed out of a group without looking at it: consumer, ticket, first position, number, and when. It is written down
-- by the next step that looks at the group.
local GRANT = '>I7I7I7I7I7'
local write_down

-- A group with a member and the pages of some positions, all read at once.
local function find_group(incarnation, consumer, from, to)
  local group = groups[incarnation]
  if group ~= nil then
    return group
  end
  -- Where nobody is asked for, it will be about who waits longest.
  group = known.groups[incarnation]
  local member = consumer or group and group.queue ~= '' and struct.unpack(QUEUED, group.queue) or 0
  local fields, first, last = { 'state', 'queue', 'grant', 'm' .. int(member) }, 1, 0
  if from then
    first = math.floor(from / PAGE)
    last = at_most(math.floor((to or from) / PAGE), first + 40)
    for page = first, last do
      fields[#fields + 1] = 'p' .. int(page)
    end
  end
  local values = call('HMGET', P .. 'g:' .. int(incarnation), unpack(fields))
  local packed = values[1]
  if not packed then
    groups[incarnation] = false
    return false
  end
  if not (group and group.packed == packed) then
    group = unpack_group(incarnation, packed)
    known.groups[incarnation], remembered = group, remembered + 1
  end
  open_group(group, values[2] or '')
  group.gaps = group.gap_count > 0 and cmsgpack.unpack(call('HGET', group.key, 'gaps')) or {}
  group.recorded = group.floor
  load_member(group, member, values[4])
  for page = first, last do
    group.pages[page] = values[5 + page - first] or BLANK
  end
  if values[3] and values[3] ~= '' then
    write_down(make_topic(group.topic), group, values[3])
  end
  return group
end

local function change(group, field, value)
  group.changed[field] = value
end

local function remove(group, field)
  group.changed[field] = false
end

local function find_member(group, consumer)
  local member = group.loaded_members[consumer]
  if member == nil then
    member = load_member(group, consumer, call('HGET', group.key, 'm' .. int(consumer)))
  end
  return member
end

local function save_member(group, consumer, member)
  if member.gone and member.in_flight <= 0 then
    group.loaded_members[consumer], group.known_members[consumer] = false, nil
    remove(group, 'm' .. int(consumer))
  else
    group.loaded_members[consumer], group.known_members[consumer] = member, member
    change(group, 'm' .. int(consumer), member)
  end
end

local function page_of(group, position)
  local nth = math.floor(position / PAGE)
  local page = group.pages[nth]
  if not page then
    page = nth * PAGE < group.cursor and call('HGET', group.key, 'p' .. int(nth)) or BLANK
    group.pages[nth] = page
  end
  return page, nth, (position % PAGE) * CELL_BYTES
end

-- Writes one cell into `count` positions from `from` on.
local function fill(group, from, count, raw)
  local whole
  while count > 0 do
    local n, nth, page = at_most(count, PAGE - from % PAGE), math.floor(from / PAGE), nil
    if n == PAGE then
      whole = whole or string.rep(raw, PAGE)
      page = whole
    else
      local offset
      page, nth, offset = page_of(group, from)
      page = string.sub(page, 1, offset) .. string.rep(raw, n) .. string.sub(page, offset + n * CELL_BYTES + 1)
    end
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

-- What a cell has no room for: the history `h`, what a commit `said` and answered (`out`).
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
